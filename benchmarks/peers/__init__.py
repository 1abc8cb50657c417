"""The same cases on what people use today: `pip install -r benchmarks/peers/requirements.txt`, then
`python -m benchmarks.peers`. What is not installed is left out; nothing else needs them.
"""
