"""One replica of alanine dipeptide (ACE-ALA-NME) in implicit solvent: molecular dynamics by OpenMM at a temperature.

Lives here: the peptide, its force field, dynamics, the angles phi and psi. Hosts need openmm: `pip install openmm`.
Elsewhere:  many replicas and the exchange of their temperatures (`peptide_exchange.py`), maps (`ramachandran.py`).

Force field: amber14 (ff14SB), as OpenMM brings it. Solvent: OBC2, A. Onufriev, D. Bashford, D. A. Case, Proteins 55
(2004) 383, through OpenMM's `GBSAOBCForce`: the same energy as its `implicit/obc2.xml` to 1e-4 kJ/mol (a test holds
the two against each other), and seventy times faster on the Reference platform.

Where the same seed gives the same trajectory: on the Reference platform (double precision, one thread), with the same
version of OpenMM on the same kind of machine. Another libm, compiler or processor may change the last digit of a force,
and within picoseconds the motion: then runs agree in their averages alone. The CPU platform (single precision) is asked
for one thread and deterministic forces, but no promise is made of it here. Exchanges follow the energies.
"""

from __future__ import annotations

import math
import socket
import sys
from io import StringIO
from typing import NamedTuple

SOLVENTS = ("obc2", "vacuum")
PLATFORMS = {"Reference": {}, "CPU": {"Threads": "1", "DeterministicForces": "true"}}
GAS_CONSTANT = 0.00831446261815324  # kJ/mol/K
FRICTION = 1.0  # 1/ps
TIME_STEP = 0.002  # ps; bonds to hydrogen are rigid
SAMPLE_EVERY = 50  # steps

# Heavy atoms placed by bond lengths and angles, phi, psi = -75, 150 degrees; OpenMM added hydrogens and minimised.
START = """\
ATOM      1  CH3 ACE A   1      -0.057  -0.077   0.012  1.00  0.00           C
ATOM      2  H1  ACE A   1      -0.373  -0.484   0.973  1.00  0.00           H
ATOM      3  H2  ACE A   1      -0.412  -0.724  -0.790  1.00  0.00           H
ATOM      4  H3  ACE A   1      -0.469   0.923  -0.116  1.00  0.00           H
ATOM      5  C   ACE A   1       1.453  -0.014  -0.029  1.00  0.00           C
ATOM      6  O   ACE A   1       2.024   1.071  -0.142  1.00  0.00           O
ATOM      7  N   ALA A   2       2.096  -1.175   0.068  1.00  0.00           N
ATOM      8  H   ALA A   2       1.544  -2.016   0.156  1.00  0.00           H
ATOM      9  CA  ALA A   2       3.553  -1.319   0.003  1.00  0.00           C
ATOM     10  HA  ALA A   2       3.996  -0.631   0.723  1.00  0.00           H
ATOM     11  C   ALA A   2       4.134  -0.981  -1.389  1.00  0.00           C
ATOM     12  O   ALA A   2       3.464  -1.128  -2.419  1.00  0.00           O
ATOM     13  CB  ALA A   2       3.917  -2.747   0.430  1.00  0.00           C
ATOM     14  HB1 ALA A   2       3.538  -2.942   1.433  1.00  0.00           H
ATOM     15  HB2 ALA A   2       5.000  -2.865   0.435  1.00  0.00           H
ATOM     16  HB3 ALA A   2       3.484  -3.465  -0.266  1.00  0.00           H
ATOM     17  N   NME A   3       5.404  -0.557  -1.422  1.00  0.00           N
ATOM     18  H   NME A   3       5.891  -0.475  -0.541  1.00  0.00           H
ATOM     19  C   NME A   3       6.135  -0.206  -2.638  1.00  0.00           C
ATOM     20  H1  NME A   3       6.239  -1.082  -3.278  1.00  0.00           H
ATOM     21  H2  NME A   3       5.599   0.570  -3.186  1.00  0.00           H
ATOM     22  H3  NME A   3       7.128   0.165  -2.384  1.00  0.00           H
TER
END
"""
PHI = (4, 6, 8, 10)  # C of ACE, N, CA, C of ALA
PSI = (6, 8, 10, 16)  # N, CA, C of ALA, N of NME

# Radius in nm (mbondi2; hydrogen on nitrogen apart) and the factor of its screening, by element.
BORN = {"H": (0.120, 0.85), "HN": (0.130, 0.85), "C": (0.170, 0.72), "N": (0.155, 0.79), "O": (0.150, 0.85)}


class Report(NamedTuple):
    """What one call of `run` has to say."""

    energy: float  # potential energy at the end, kJ/mol: it decides about exchanges
    kinetic: float  # mean temperature of the motion, K
    angles: list[tuple[float, float]]  # phi and psi in degrees, every SAMPLE_EVERY steps


class Peptide:
    """Alanine dipeptide at one temperature. Published once; every server then goes its own way by its own seed."""

    def __init__(self, solvent: str = "obc2", platform: str = "Reference") -> None:
        self.solvent, self.platform = solvent, platform

    def start(self, temperature: float, seed: int) -> float:
        """Build the system, draw velocities at `temperature` K; answer the potential energy in kJ/mol.

        Raises:
            ImportError: This host's Python has no openmm; the message has the line that installs it.
        """
        import_openmm()
        from openmm import Context, LangevinMiddleIntegrator, Platform

        system, positions = make_system(self.solvent)
        self.freedoms = 3 * system.getNumParticles() - system.getNumConstraints()
        self.temperature = temperature
        seed = 1 + seed % (2**31 - 2)  # to OpenMM 0 means: take any
        self.integrator = LangevinMiddleIntegrator(temperature, FRICTION, TIME_STEP)
        self.integrator.setRandomNumberSeed(seed)
        platform = Platform.getPlatformByName(self.platform)
        self.context = Context(system, self.integrator, platform, PLATFORMS[self.platform])
        self.context.setPositions(positions)
        self.context.setVelocitiesToTemperature(temperature, seed)
        return self._energies()[0]

    def set_temperature(self, temperature: float) -> None:
        """Change the heat bath, and scale the velocities to it, as Sugita and Okamoto (`peptide_exchange.py`) do."""
        if temperature != self.temperature:
            velocities = self.context.getState(velocities=True).getVelocities(asNumpy=True)
            self.context.setVelocities(velocities * math.sqrt(temperature / self.temperature))
            self.integrator.setTemperature(temperature)
            self.temperature = temperature

    def run(self, steps: int) -> Report:
        """Walk `steps` steps, a multiple of SAMPLE_EVERY."""
        motion, angles = [], []
        for _ in range(steps // SAMPLE_EVERY):
            self.integrator.step(SAMPLE_EVERY)
            motion.append(2.0 * self._energies()[1] / (self.freedoms * GAS_CONSTANT))
            angles.append(self.angles())
        return Report(self._energies()[0], math.fsum(motion) / len(motion), angles)

    def angles(self) -> tuple[float, float]:
        """phi and psi as they are, in degrees."""
        points = self.context.getState(positions=True).getPositions(asNumpy=True)._value.tolist()
        return torsion(*(points[i] for i in PHI)), torsion(*(points[i] for i in PSI))

    def _energies(self) -> tuple[float, float]:
        """Potential and kinetic, in kJ/mol."""
        state = self.context.getState(energy=True)
        return state.getPotentialEnergy()._value, state.getKineticEnergy()._value


def import_openmm() -> None:
    """Raise an ImportError that says what to do, unless there is OpenMM here."""
    try:
        import openmm  # noqa: F401 - whether it is there
    except ImportError as exc:
        raise ImportError(
            f"{socket.gethostname()}: this example needs OpenMM ({exc}). Run: {sys.executable} -m pip install openmm"
        ) from exc


def make_system(solvent: str):
    """The peptide as (openmm.System, positions); `solvent` is one of SOLVENTS."""
    from openmm import GBSAOBCForce, NonbondedForce
    from openmm.app import ForceField, HBonds, PDBFile

    pdb = PDBFile(StringIO(START))
    system = ForceField("amber14/protein.ff14SB.xml").createSystem(
        pdb.topology, constraints=HBonds, removeCMMotion=False
    )
    if solvent == "obc2":
        (pairs,) = (force for force in system.getForces() if isinstance(force, NonbondedForce))
        born = GBSAOBCForce()
        born.setSolventDielectric(78.5)  # as OpenMM's file has it
        for atom, kind in enumerate(kinds(pdb.topology)):
            charge = pairs.getParticleParameters(atom)[0]
            born.addParticle(charge, *BORN[kind])
        system.addForce(born)
    return system, pdb.positions


def kinds(topology) -> list[str]:
    """Of each atom its key in BORN."""
    symbols = [atom.element.symbol for atom in topology.atoms()]
    for bond in topology.bonds():
        here, there = (atom.index for atom in bond)
        for one, other in ((here, there), (there, here)):
            if symbols[one] == "H" and symbols[other] == "N":
                symbols[one] = "HN"
    return symbols


def torsion(a: list[float], b: list[float], c: list[float], d: list[float]) -> float:
    """Angle about the bond b-c in degrees, -180 to 180; 0 where a and d are cis (IUPAC's sign)."""
    ab, bc, cd = ([q - p for p, q in zip(*pair, strict=True)] for pair in ((a, b), (b, c), (c, d)))
    left, right = _cross(ab, bc), _cross(bc, cd)
    return math.degrees(math.atan2(math.hypot(*bc) * _dot(ab, right), _dot(left, right)))


def _cross(p: list[float], q: list[float]) -> list[float]:
    return [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]]


def _dot(p: list[float], q: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(p, q, strict=True))
