"""Messages travel as JSON, and find the method that handles them."""

from __future__ import annotations

import pytest

from grid.jobs import Message, Monitor, RequestError
from grid.jobs.host import messages
from grid.jobs.host.messages import dispatch


@pytest.mark.row("V20")
def test_standard_messages_travel_as_json_with_job_number_and_time() -> None:
    sent = messages.Progress(k=3, n=10, units="cycles")
    sent.job, sent.number, sent.time = "job-7", 12, 1e9
    back = Message.from_plain(sent.to_plain())
    assert type(back) is messages.Progress and back == sent
    assert (back.time, back.k, back.units) == (1e9, 3, "cycles")
    for name in ("Start", "Join", "Progress", "Improved", "Completed", "Error", "Aborted", "Log"):
        assert messages.KINDS[name].kind == name
    unknown = Message.from_plain({"kind": "FromElsewhere", "a": [1, {"$float": "inf"}], "job": None})
    assert type(unknown) is Message and unknown.kind == "FromElsewhere" and unknown.a == [1, float("inf")]
    with pytest.raises(AttributeError, match="has no field 'b'; it has a"):
        _ = unknown.b
    with pytest.raises(RequestError, match=r"field 'x' of Improved is a builtins\.object"):
        messages.Improved(x=object()).to_plain()
    for wrong in ({"kind": "a b"}, {}, {"kind": "A", "_b": 1}):
        with pytest.raises(RequestError):
            Message.from_plain(wrong)


@pytest.mark.row("V21")
def test_messages_find_the_method_named_after_their_class() -> None:
    heard: list[str] = []

    class SetTemperature(Message):
        pass

    class Mine(Monitor):
        def on_improved(self, message: Message) -> None:
            heard.append(f"improved {message.partial}")

        def on_SetTemperature(self, message: Message) -> None:
            heard.append(f"set {message.kelvin}")

        def on_message(self, message: Message) -> None:
            heard.append(f"else {message.kind}")

    monitor = Mine()
    for message in (messages.Improved(partial=1), SetTemperature(kelvin=300), messages.Log(text="x")):
        monitor.put(message)
    assert heard == ["improved 1", "set 300", "else Log"]

    class Snake:
        def on_set_temperature(self, message: Message) -> str:
            return "snake"

    assert dispatch(Snake(), SetTemperature()) == "snake" and dispatch(Snake(), messages.Log()) is None
