use super::*;
use crate::IsaKind;
use longmamba_core::oracle;

/// Distance between `actual` and `expected` in units of the last place of `expected` as an `f32`;
/// infinite where one is NaN and the other is not. Below 2⁻¹²⁶, where the functions flush, the unit
/// is that of 2⁻¹²⁶, and a flush is no error.
fn ulps(actual: f32, expected: f64) -> f64 {
    if actual.is_nan() || expected.is_nan() {
        return if actual.is_nan() && expected.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let smallest = f64::from(f32::MIN_POSITIVE);
    if actual == 0.0 && expected.abs() < smallest * 1.0001 {
        return 0.0;
    }
    if f64::from(actual) == expected {
        return 0.0;
    }
    // The exponent of `expected`, less 23.
    let unit = (expected.abs().max(smallest).to_bits() >> 52) - 23;
    (f64::from(actual) - expected).abs() / f64::from_bits(unit << 52)
}

type Function = (&'static str, fn(&Cpu, &mut [f32]), fn(f64) -> f64, f64);

/// Name, kernel, reference, bound in ULP.
const FUNCTIONS: [Function; 3] = [
    ("exp", |cpu, v| cpu.exp_nonpositive(v), |x| x.min(0.0).exp(), 1.2),
    ("softplus", |cpu, v| cpu.softplus(v), oracle::softplus, 3.1),
    ("silu", |cpu, v| cpu.silu(v), silu_reference, 4.0),
];

fn silu_reference(x: f64) -> f64 {
    // From there on down it stays as it is.
    oracle::silu(if x < -87.0 { -87.0 } else { x })
}

/// The worst error of `function` over `inputs`, with its input.
fn worst(cpu: &Cpu, function: &Function, inputs: &[f32]) -> (f64, f32) {
    let (name, kernel, reference, _) = function;
    let mut values = inputs.to_vec();
    kernel(cpu, &mut values);
    let mut worst = (0.0, 0.0);
    for (&x, &y) in inputs.iter().zip(&values) {
        let expected = if *name == "exp" && x.is_nan() { f64::NAN } else { reference(x.into()) };
        let error = ulps(y, expected);
        if error > worst.0 {
            worst = (error, x);
        }
    }
    worst
}

#[test]
fn functions_are_within_their_bounds() {
    let mut inputs: Vec<f32> = (-1_000_000..250_000).map(|i| i as f32 * 1e-4).collect();
    // Every 65537th float, specials included.
    inputs.extend((0..=u32::MAX).step_by(65_537).map(f32::from_bits));
    inputs.extend([0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN, f32::MAX]);
    inputs.extend([-87.336_54, -87.336_55, -87.0, 20.0, 88.8, 1e-30, -1e-30, 1e-40]);
    for cpu in Cpu::available() {
        for function in &FUNCTIONS {
            let (error, x) = worst(&cpu, function, &inputs);
            println!("{} {}: {error:.3} ULP at {x:e}", cpu.isa(), function.0);
            assert!(error <= function.3, "{} {}: {error} ULP at {x:e}", cpu.isa(), function.0);
        }
    }
}

/// Establishes the bounds above: `cargo test --release --lib -- --ignored every_float --nocapture`.
#[test]
#[ignore = "all 2³² floats take minutes"]
fn every_float() {
    for cpu in [Cpu::new(), Cpu::with_isa(IsaKind::Scalar).unwrap()] {
        for function in &FUNCTIONS {
            let mut worst_of_all = (0.0, 0.0);
            for high in 0..1u32 << 12 {
                let inputs: Vec<f32> =
                    (0..1u32 << 20).map(|low| f32::from_bits(high << 20 | low)).collect();
                let found = worst(&cpu, function, &inputs);
                if found.0 > worst_of_all.0 {
                    worst_of_all = found;
                }
            }
            let (error, x) = worst_of_all;
            println!("{} {}: {error:.4} ULP at {x:e}", cpu.isa(), function.0);
            assert!(error <= function.3);
        }
    }
}

/// One vector function over a slice, for those that have no entry point.
struct Decay<'a> {
    delta: f32,
    rates: &'a mut [f32],
    or_zero: bool,
}

impl Kernel for Decay<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for v in self.rates.chunks_mut(I::LANES) {
            let u = isa.mul(isa.splat(self.delta), isa.load_part(v));
            let [decay] = match self.or_zero {
                false => exp2_nonpositive(isa, [u]),
                true => exp2_or_zero(isa, [u]),
            };
            isa.store_part(decay, v);
        }
    }
}

#[test]
fn decay_is_a_power_of_two_of_the_product() {
    for cpu in Cpu::available() {
        let mut worst = (0.0, 0.0, 0.0);
        for delta in [1e-6f32, 0.013, 0.7, 3.0, 40.0] {
            let rates: Vec<f32> = (0..200_000).map(|i| i as f32 * -1e-3).collect();
            let mut values = rates.clone();
            cpu.call(Decay { delta, rates: &mut values, or_zero: false });
            for (&rate, &value) in rates.iter().zip(&values) {
                let u = delta * rate;
                let error = ulps(value, f64::from(u.max(-126.0)).exp2());
                if error > worst.0 {
                    worst = (error, delta, rate);
                }
            }
        }
        println!("{} decay: {worst:?}", cpu.isa());
        assert!(worst.0 <= 2.2, "{} {worst:?}", cpu.isa());
    }
}

#[test]
fn a_decay_too_small_to_be_seen_is_zero() {
    for cpu in Cpu::available() {
        let rates: Vec<f32> = (0..200_000).map(|i| i as f32 * -1e-3).collect();
        let [mut whole, mut values] = [rates.clone(), rates.clone()];
        cpu.call(Decay { delta: 1.0, rates: &mut whole, or_zero: false });
        cpu.call(Decay { delta: 1.0, rates: &mut values, or_zero: true });
        for ((&u, &value), &whole) in rates.iter().zip(&values).zip(&whole) {
            assert_eq!(value, if u < -64.0 { 0.0 } else { whole }, "{} {u}", cpu.isa());
        }
    }
}

struct Gelu<'a>(&'a mut [f32]);

impl Kernel for Gelu<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for v in self.0.chunks_mut(I::LANES) {
            let [y] = gelu(isa, [isa.load_part(v)]);
            isa.store_part(y, v);
        }
    }
}

/// How much of its bound gelu uses over finite `inputs`, at most, and where.
fn check_gelu(inputs: &[f32]) {
    let expected: Vec<f64> = inputs.iter().map(|&x| oracle::gelu(x.into())).collect();
    for cpu in Cpu::available() {
        let mut values = inputs.to_vec();
        cpu.call(Gelu(&mut values));
        let mut worst = (0.0f64, 0.0);
        for ((&x, &y), &e) in inputs.iter().zip(&values).zip(&expected) {
            let unit = f64::from(f32::EPSILON) * e.abs().max(f64::from(f32::MIN_POSITIVE));
            let allowed = 2e-7 * f64::from(x).abs() + 2.0 * unit;
            let share = (f64::from(y) - e).abs() / allowed;
            // Written so that NaN fails.
            assert!(share <= 1.0, "{} gelu({x:e}) is {y:e}, expected {e:e}", cpu.isa());
            worst = if share > worst.0 { (share, x) } else { worst };
            assert!(x > -13.22 || y == 0.0, "{} gelu({x:e}) is {y:e}", cpu.isa());
            assert!(x < 6.0 || y == x, "{} gelu({x:e}) is {y:e}", cpu.isa());
        }
        println!("{} gelu: {:.3} of the bound at {:e}", cpu.isa(), worst.0, worst.1);
        // The tail, too, has digits of its own; further down the reference has none left.
        let relative = |((&x, &y), &e): ((&f32, &f32), &f64)| match x {
            -6.0..=0.0 => ((f64::from(y) - e) / e).abs(),
            _ => 0.0,
        };
        let all = inputs.iter().zip(&values).zip(&expected).map(relative);
        let worst = all.fold(0.0, f64::max);
        println!("{} gelu: within {worst:e} of itself from -6 to 0", cpu.isa());
        assert!(worst <= 5e-3, "{} gelu: {worst:e}", cpu.isa());
    }
}

#[test]
fn gelu_is_within_its_bound() {
    let mut inputs: Vec<f32> = (0..=u32::MAX).step_by(8191).map(f32::from_bits).collect();
    inputs.extend((-150_000..150_000).map(|i| i as f32 * 1e-4));
    inputs.extend([0.0, -0.0, f32::MIN, f32::MAX, -13.2, -13.22, 1e-30, -1e-30]);
    inputs.retain(|x| x.is_finite());
    check_gelu(&inputs);
    for cpu in Cpu::available() {
        let mut special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        cpu.call(Gelu(&mut special));
        assert!(special[0].is_nan() && special[1] == f32::INFINITY && special[2].is_nan());
    }
}

/// Where gelu bends, every 31st float.
#[test]
#[ignore = "some ten seconds"]
fn many_floats_of_gelu() {
    let (low, high) = (2.0f32.powi(-16).to_bits(), 16.0f32.to_bits());
    let positive = (low..high).step_by(31).map(f32::from_bits);
    let inputs: Vec<f32> = positive.flat_map(|x| [x, -x]).collect();
    check_gelu(&inputs);
}

/// What the identity of a masked token rests on.
#[test]
fn zero_delta_decays_nothing_and_infinite_delta_all_but_everything() {
    for cpu in Cpu::available() {
        let mut rates = [-0.0, -1.0, -1e30, 0.0, -1e-30];
        cpu.call(Decay { delta: 0.0, rates: &mut rates, or_zero: false });
        assert_eq!(rates, [1.0; 5]);
        let mut rates = [-1.0, -0.5];
        cpu.call(Decay { delta: f32::INFINITY, rates: &mut rates, or_zero: false });
        assert_eq!(rates, [f32::MIN_POSITIVE; 2]);
    }
}

#[test]
fn delta_is_clamped_softplus_of_any_layout() {
    let (batch, len, channels) = (2, 3, 21);
    let raw: Vec<f32> = (0..batch * len * 30).map(|i| (i * 37 % 101) as f32 * 0.2 - 12.0).collect();
    let bias: Vec<f32> = (0..channels).map(|i| i as f32 * 0.1).collect();
    let layout =
        longmamba_core::Layout::strided([batch, len, channels], [len * 30, 30, 1]).unwrap();
    let view = View::with_layout(&raw, layout).unwrap();
    let limits = DtLimits { min: 1e-3, max: 2.0 };
    for cpu in Cpu::available() {
        let mut out = vec![f32::NAN; batch * len * channels];
        let target = ViewMut::new(&mut out, [batch, len, channels]).unwrap();
        cpu.delta(view, Some(&bias), limits, target).unwrap();
        for (i, &value) in out.iter().enumerate() {
            let c = i % channels;
            let raw = view.get([i / channels / len, i / channels % len, c]).unwrap();
            let expected = oracle::delta(raw, bias[c], limits);
            assert!(
                (f64::from(value) - expected).abs() <= 1e-6 * expected,
                "{i}: {value} {expected}"
            );
        }
        let target = ViewMut::new(&mut out, [batch, len, channels]).unwrap();
        let error = cpu.delta(view, Some(&bias[1..]), limits, target).unwrap_err();
        assert_eq!(error.to_string(), "dt_bias has shape [20], expected [21]");
    }
}
