//! Every kind of layer.

use pnncore::system::stack::{
    Carrier, CoupledModesSpec, DetectSpec, DetectorRegionsSpec, DiffractionSpec, EncodeSpec,
    FibreSpec, Function, LayerChoice, LinearSpec, MZIMeshSpec, MaskKind, MeshLayout, MicroringSpec,
    NormaliseSpec, PendulaSpec, PlateSpec, PointwiseSpec, PulseShape, Quantity, SecondHarmonicSpec,
    SpeckleSpec, TransistorSpec, WaveguideSpec,
};

pub(super) fn tanh() -> LayerChoice {
    pointwise(Function::Tanh)
}

pub(super) fn linear(inputs: usize, outputs: usize) -> LayerChoice {
    LinearSpec::new(inputs, outputs, true).into()
}

pub(super) fn pointwise(function: Function) -> LayerChoice {
    PointwiseSpec { function }.into()
}

/// Four regions of three by four pixels.
pub(super) fn regions(differential: bool) -> DetectorRegionsSpec {
    let regions = vec![[0, 0, 2, 1], [0, 2, 1, 4], [2, 0, 3, 2], [1, 2, 3, 4]];
    let gain = Some(3.0);
    DetectorRegionsSpec { differential, gain, ..DetectorRegionsSpec::new([3, 4], regions) }
}

/// Sixteen points in eight pixels; seven steps, so that a stretch without a kept field is shorter.
pub(super) fn waveguide() -> WaveguideSpec {
    WaveguideSpec {
        points: 16,
        width: 20.0,
        length: 70.0,
        wavelength: 1.5,
        index: 1.6,
        index_range: 0.02,
        steps: 7,
        sections: 7,
        pixels: 8,
        absorber: 0.2,
    }
}

/// A pulse that changes its shape by dispersion and nonlinearity alike.
pub(super) fn fibre() -> FibreSpec {
    FibreSpec {
        points: 16,
        window: 8.0,
        length: 1.5,
        dispersion: -1.0,
        nonlinearity: 2.0,
        pulse: PulseShape::Sech,
        duration: 0.8,
        peak_power: 1.0,
        steps: 30,
    }
}

/// Ten modes, the first six with inputs, two of which are coupled; reflections and a transmission.
pub(super) fn coupled_modes() -> CoupledModesSpec {
    CoupledModesSpec {
        modes: 10,
        inputs: 6,
        edges: vec![[0, 6], [7, 1], [2, 8], [3, 6], [4, 5], [5, 7], [6, 9], [8, 9], [7, 8]],
        outputs: vec![[9, 9], [8, 0], [5, 5]],
        decay: 0.7,
        loss: 0.1,
        frequency: 0.2,
        probe: 1.5,
        tunable_decay: true,
        probe_noise: 0.0,
    }
}

/// Every kind of layer, in chains from six real inputs to so many real outputs.
pub(super) fn kinds() -> Vec<(Vec<LayerChoice>, usize)> {
    vec![
        (vec![LinearSpec::new(6, 4, false).into()], 4),
        (vec![pointwise(Function::Relu)], 6),
        (vec![tanh()], 6),
        (vec![pointwise(Function::Logistic)], 6),
        (vec![pointwise(Function::SaturableAbsorber { depth: 2.0, saturation: 0.5 })], 6),
        (vec![pointwise(Function::ElectroOptic { gain: 1.5, bias: 1.0, tap: 0.1 })], 6),
        (vec![NormaliseSpec {}.into()], 6),
        (vec![SpeckleSpec { inputs: 6, outputs: 7, reference: 0.3 }.into()], 7),
        (vec![SecondHarmonicSpec { inputs: 6, parameters: 5 }.into()], 21),
        (vec![PendulaSpec { inputs: 6, time: 2.0, steps: 20 }.into()], 6),
        (
            vec![PlateSpec { inputs: 6, parameters: 3, modes: 5, damping: 0.1, cubic: 0.5 }.into()],
            9,
        ),
        (vec![TransistorSpec { inputs: 6, parameters: 3 }.into()], 9),
        (vec![MicroringSpec::new(6, 4, 3.0, 40.0).into()], 4),
        (vec![coupled_modes().into(), DetectSpec::new(Quantity::Quadratures).into()], 6),
        (
            vec![
                EncodeSpec::new(Some(6), Carrier::Phase).into(),
                MZIMeshSpec::new(MeshLayout::Clements, 6, 6).into(),
                DetectSpec::new(Quantity::Intensity).into(),
            ],
            6,
        ),
        (
            vec![
                EncodeSpec::new(Some(6), Carrier::Amplitude).into(),
                DetectSpec::new(Quantity::Intensity).into(),
            ],
            6,
        ),
        (
            vec![
                EncodeSpec::new(Some(6), Carrier::Amplitude).into(),
                DiffractionSpec::new([2, 3], [5.0, 1.0, 0.6], None).into(),
                DiffractionSpec {
                    absorption: 0.1,
                    ..DiffractionSpec::new([2, 3], [3.0, 1.0, 0.8], Some(MaskKind::Complex))
                }
                .into(),
                DiffractionSpec::new([2, 3], [4.0, 1.0, 0.5], Some(MaskKind::Amplitude)).into(),
                DetectSpec::new(Quantity::Quadratures).into(),
            ],
            12,
        ),
        (
            vec![
                EncodeSpec {
                    modes: Some(12),
                    ports: (0..6).map(|k| vec![k, 11 - k]).collect(),
                    ..EncodeSpec::new(Some(6), Carrier::Phase)
                }
                .into(),
                DiffractionSpec::new([3, 4], [4.0, 1.0, 2.0], Some(MaskKind::Phase)).into(),
                regions(false).into(),
            ],
            4,
        ),
        (
            vec![
                EncodeSpec { modes: Some(12), ..EncodeSpec::new(Some(6), Carrier::Amplitude) }
                    .into(),
                DiffractionSpec::new([3, 4], [4.0, 1.0, 0.9], Some(MaskKind::Phase)).into(),
                DetectorRegionsSpec { gain: None, ..regions(true) }.into(),
            ],
            2,
        ),
        (
            vec![
                EncodeSpec { modes: Some(16), ..EncodeSpec::new(Some(6), Carrier::Amplitude) }
                    .into(),
                waveguide().into(),
                DetectSpec::new(Quantity::Intensity).into(),
            ],
            16,
        ),
        (
            vec![
                EncodeSpec {
                    modes: Some(16),
                    ports: (0..6).map(|k| vec![5 + k]).collect(),
                    references: vec![(4, 1.0), (11, 0.5)],
                    ..EncodeSpec::new(Some(6), Carrier::Phase)
                }
                .into(),
                fibre().into(),
                DetectSpec::new(Quantity::Intensity).into(),
            ],
            16,
        ),
        (
            vec![
                EncodeSpec { modes: Some(12), ..EncodeSpec::new(Some(6), Carrier::Phase) }.into(),
                DiffractionSpec::new([3, 4], [4.0, 1.0, 0.9], Some(MaskKind::Phase)).into(),
                regions(true).into(),
            ],
            2,
        ),
        (
            vec![
                EncodeSpec {
                    ports: [5, 0, 2, 3, 4, 1].map(|port| vec![port]).into(),
                    ..EncodeSpec::new(Some(6), Carrier::Amplitude)
                }
                .into(),
                MZIMeshSpec {
                    half_wave_voltage: Some(2.0),
                    ..MZIMeshSpec::new(MeshLayout::Reck, 6, 6)
                }
                .into(),
                DetectSpec::new(Quantity::Real).into(),
            ],
            6,
        ),
    ]
}
