# ruff: noqa: N802 -- these are names of the literature
"""Cells with the constants of published devices, by the names of the literature.

Constants are those of the analog hardware acceleration kit of Rasch et al., AICAS (2021), and of
the measurements that they were fitted to. All weights are in units in which the range is about -1
to 1.
"""

from collections.abc import Callable

from pnncore.devices._cells import Cells, ConstantStep, ExpStep, LinearStep, Pair, SoftBounds


def Idealized() -> ConstantStep:
    """Return a symmetric device with 10,000 steps.

    Rasch, Gokmen, Haensch, IEEE Des. Test 37, 177 (2020).
    """
    return ConstantStep(step=0.0002, lower=-1.0, upper=1.0, up_down_spread=0.0)


def GokmenVlasov() -> ConstantStep:
    """Return the specification of Gokmen and Vlasov: 1,200 steps.

    Front. Neurosci. 10, 333 (2016).
    """
    return ConstantStep(step=0.0016, lower=-1.0, upper=1.0)


def ReRamES() -> ExpStep:
    """Return resistive memory with exponential steps.

    Fitted to Gong et al., Nat. Commun. 9, 2102 (2018).
    """
    return ExpStep(
        step=0.00135,
        up_down=0.259359,
        lower=-1.0,
        upper=1.0,
        amplitude_up=-1.18445,
        amplitude_down=-0.081404,
        gamma_up=5.0,
        gamma_down=5.0,
        a=-0.5,
        b=-0.5,
        step_spread=0.2,
        up_down_spread=0.05,
        cycle_noise=5.0,
        write_noise=75.0,
    )


def ReRamSB() -> SoftBounds:
    """Return resistive memory with soft bounds, symmetric at zero.

    Gong et al., Nat. Commun. 9, 2102 (2018).
    """
    return SoftBounds(
        step=0.002,
        lower=-0.75,
        upper=1.25,
        lower_spread=0.4,
        upper_spread=0.24,
        cycle_noise=3.75,
        additive_noise=True,
        write_noise=56.0,
    )


def Capacitor() -> LinearStep:
    """Return a capacitor that leaks: Li et al., VLSI Technology (2018)."""
    return LinearStep(
        step=0.005,
        lower=-1.0,
        upper=1.0,
        gamma_up=0.05,
        gamma_down=0.05,
        gamma_spread=0.01,
        mean_bound=True,
        additive_noise=True,
        step_spread=0.1,
        up_down_spread=0.06,
        lower_spread=0.07,
        upper_spread=0.07,
        lifetime=1e6,
        lifetime_spread=0.3,
    )


def EcRam() -> LinearStep:
    """Return electrochemical memory with lithium ions: Tang et al., IEDM (2018)."""
    return _ecram(step=0.002, lower=-0.8276, upper=1.1724, gamma_up=0.1153, gamma_down=0.5085)


def EcRamMO() -> LinearStep:
    """Return electrochemical memory of metal oxides: Kim et al., IEDM (2019)."""
    return _ecram(
        step=2.8214e-4,
        lower=-0.8286,
        upper=1.1714,
        gamma_up=0.4152,
        gamma_down=0.7342,
        cycle_noise=2.0,
    )


def _ecram(**own: float) -> LinearStep:
    spreads = {"step_spread": 0.1, "lower_spread": 0.05, "upper_spread": 0.05, "gamma_spread": 0.05}
    return LinearStep(**spreads, **own, mean_bound=True)  # type: ignore[arg-type]


def PCM() -> Pair:
    """Return pairs of phase-change memory cells.

    Nandakumar et al., Front. Neurosci. 14, 406 (2020).
    """
    return Pair(
        ExpStep(
            step=0.01,
            lower=0.0,
            upper=2.0,
            amplitude_up=-27.235,
            amplitude_down=-2.235,
            gamma_up=2.5,
            gamma_down=2.5,
            a=-1.0,
            b=0.0,
            step_spread=0.2,
            up_down_spread=0.05,
            lower_spread=0.0,
            upper_spread=0.1,
            cycle_noise=0.6,
        )
    )


PRESETS: dict[str, Callable[[], Cells | Pair]] = {
    make.__name__: make
    for make in (Idealized, GokmenVlasov, ReRamES, ReRamSB, Capacitor, EcRam, EcRamMO, PCM)
}
