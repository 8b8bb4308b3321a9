//! Arithmetic that the processor does not offer: rounding modes, half formats, flushing.
//!
//! A result that f64 does not hold exactly is carried as a sum `s + t`, `t` being what `s` lost.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Near,
    Zero,
    Down,
    Up,
}

impl Round {
    /// Whether to go away from a nearest result `r` whose error (`exact - r`) has the sign of `error`.
    fn moves(self, r: f64, error: f64) -> Option<bool> {
        let up = match self {
            Round::Near => return None,
            Round::Down if error < 0.0 => false,
            Round::Up if error > 0.0 => true,
            Round::Zero if r > 0.0 && error < 0.0 => false,
            Round::Zero if r < 0.0 && error > 0.0 => true,
            _ => return None,
        };
        Some(up)
    }
}

fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let bb = s - a;
    let t = (a - (s - bb)) + (b - bb);
    (s, if t.is_finite() { t } else { 0.0 })
}

/// `s + t` to f32.
fn fit32(s: f64, t: f64, round: Round) -> f32 {
    if round == Round::Near {
        return odd(s, t) as f32;
    }
    let r = s as f32;
    let error = s - f64::from(r);
    let error = if error == 0.0 { t } else { error };
    match round.moves(r.into(), error) {
        Some(true) => r.next_up(),
        Some(false) => r.next_down(),
        None => r,
    }
}

/// Rounds `s + t` so that rounding once more, to a format with at least two bits less, is as if it
/// were done once: inexact results end in a one.
fn odd(s: f64, t: f64) -> f64 {
    if t == 0.0 || !s.is_finite() || s.to_bits() & 1 == 1 {
        s
    } else if t > 0.0 {
        s.next_up()
    } else {
        s.next_down()
    }
}

pub(crate) fn add32(a: f32, b: f32, round: Round) -> f32 {
    let (s, t) = two_sum(a.into(), b.into());
    zero_sign(fit32(s, t, round), a == -b, round)
}

/// An exact zero of two summands is negative only when rounding down (or both are negative).
fn zero_sign(r: f32, cancels: bool, round: Round) -> f32 {
    if round == Round::Down && cancels && r == 0.0 { -0.0 } else { r }
}

pub(crate) fn mul32(a: f32, b: f32, round: Round) -> f32 {
    fit32(f64::from(a) * f64::from(b), 0.0, round)
}

pub(crate) fn fma32(a: f32, b: f32, c: f32, round: Round) -> f32 {
    if round == Round::Near {
        return a.mul_add(b, c);
    }
    let (s, t) = two_sum(f64::from(a) * f64::from(b), c.into());
    fit32(s, t, round)
}

pub(crate) fn div32(a: f32, b: f32, round: Round) -> f32 {
    let r = a / b;
    if round == Round::Near || !r.is_finite() {
        return r;
    }
    let error = (-f64::from(r)).mul_add(b.into(), a.into()) * f64::from(b.signum());
    fix32(r, error, round)
}

pub(crate) fn sqrt32(a: f32, round: Round) -> f32 {
    let r = a.sqrt();
    fix32(r, (-f64::from(r)).mul_add(r.into(), a.into()), round)
}

fn fix32(r: f32, error: f64, round: Round) -> f32 {
    match round.moves(r.into(), error) {
        Some(true) => r.next_up(),
        Some(false) => r.next_down(),
        None => r,
    }
}

fn fix64(r: f64, error: f64, round: Round) -> f64 {
    match round.moves(r, error) {
        Some(true) => r.next_up(),
        Some(false) => r.next_down(),
        None => r,
    }
}

pub(crate) fn add64(a: f64, b: f64, round: Round) -> f64 {
    let (s, t) = two_sum(a, b);
    fix64(s, t, round)
}

pub(crate) fn mul64(a: f64, b: f64, round: Round) -> f64 {
    let r = a * b;
    fix64(r, a.mul_add(b, -r), round)
}

pub(crate) fn div64(a: f64, b: f64, round: Round) -> f64 {
    let r = a / b;
    fix64(r, (-r).mul_add(b, a) * b.signum(), round)
}

pub(crate) fn sqrt64(a: f64, round: Round) -> f64 {
    let r = a.sqrt();
    fix64(r, (-r).mul_add(r, a), round)
}

/// f64 to f32 in any mode.
pub(crate) fn narrow(a: f64, round: Round) -> f32 {
    fit32(a, 0.0, round)
}

/// An integer to f32, rounded once.
pub(crate) fn int_to_f32(value: i128, round: Round) -> f32 {
    let r = value as f32;
    // The error is exact as a difference of integers; f32 of 64-bit integers is never infinite.
    let error = value - r as i128;
    fix32(r, error as f64, round)
}

/// An integer to f64, rounded once.
pub(crate) fn int_to_f64(value: i128, round: Round) -> f64 {
    let r = value as f64;
    fix64(r, (value - r as i128) as f64, round)
}

/// To an integer value in a float.
pub(crate) fn integral(a: f64, round: Round) -> f64 {
    match round {
        Round::Near => a.round_ties_even(),
        Round::Zero => a.trunc(),
        Round::Down => a.floor(),
        Round::Up => a.ceil(),
    }
}

/// Subnormal to zero of its sign.
#[inline(always)]
pub(crate) fn flush(a: f32) -> f32 {
    if a.is_subnormal() { 0.0_f32.copysign(a) } else { a }
}

/// Into `[0, 1]`, not-a-number to zero.
#[inline(always)]
pub(crate) fn saturate(a: f32) -> f32 {
    if a > 0.0 { a.min(1.0) } else { 0.0 }
}

/// A 16-bit float format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    F16,
    Bf16,
}

impl Half {
    /// To f32, exactly.
    #[inline(always)]
    pub fn decode(self, bits: u16) -> f32 {
        match self {
            Half::Bf16 => f32::from_bits(u32::from(bits) << 16),
            Half::F16 => {
                let sign = u32::from(bits & 0x8000) << 16;
                let rest = u32::from(bits & 0x7fff);
                // Scaling by 2^112 moves the exponent's bias, and makes subnormals normal.
                let scaled = f32::from_bits(rest << 13) * f32::from_bits(0x7780_0000);
                let value =
                    if rest >= 0x7c00 { rest << 13 | 0x7f80_0000 } else { scaled.to_bits() };
                f32::from_bits(sign | value)
            }
        }
    }

    /// From f64, rounded once.
    pub fn encode(self, a: f64, round: Round) -> u16 {
        let (mantissa, lowest, infinity) = match self {
            Half::F16 => (10, -14, 0x7c00),
            Half::Bf16 => (7, -126, 0x7f80),
        };
        if a.is_nan() {
            return 0x7fff;
        }
        let sign = if a.is_sign_negative() { 0x8000 } else { 0 };
        let a = a.abs();
        if a.is_infinite() {
            return sign | infinity;
        }
        let exponent = ((a.to_bits() >> 52) as i64 - 1023).max(lowest);
        // In units of the last place: exact, a scaling by a power of two.
        let units = a * f64::from_bits(((mantissa - exponent + 1023) as u64) << 52);
        let units = match (round, sign == 0) {
            (Round::Near, _) => units.round_ties_even(),
            (Round::Zero, _) | (Round::Down, true) | (Round::Up, false) => units.floor(),
            (Round::Up, true) | (Round::Down, false) => units.ceil(),
        };
        let bits = ((exponent - lowest + 1) << mantissa) + units as i64 - (1 << mantissa);
        if bits < i64::from(infinity) {
            return sign | bits as u16;
        }
        let largest = matches!(
            (round, sign == 0),
            (Round::Zero, _) | (Round::Down, true) | (Round::Up, false)
        );
        sign | if largest { infinity - 1 } else { infinity }
    }

    /// From f32 to nearest.
    #[inline(always)]
    pub fn nearest(self, a: f32) -> u16 {
        match self {
            Half::F16 => self.encode(a.into(), Round::Near),
            Half::Bf16 => {
                let bits = a.to_bits();
                let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
                if a.is_nan() { 0x7fff } else { rounded }
            }
        }
    }

    pub fn add(self, a: u16, b: u16) -> u16 {
        let (s, t) = two_sum(self.decode(a).into(), self.decode(b).into());
        self.encode(odd(s, t), Round::Near)
    }

    pub fn mul(self, a: u16, b: u16) -> u16 {
        self.encode(f64::from(self.decode(a)) * f64::from(self.decode(b)), Round::Near)
    }

    pub fn fma(self, a: u16, b: u16, c: u16) -> u16 {
        let product = f64::from(self.decode(a)) * f64::from(self.decode(b));
        let (s, t) = two_sum(product, self.decode(c).into());
        self.encode(odd(s, t), Round::Near)
    }

    /// The lesser or the greater; `nan` says whether not-a-number wins or loses.
    pub fn choose(self, a: u16, b: u16, greater: bool, nan: bool) -> u16 {
        let (x, y) = (self.decode(a), self.decode(b));
        match (x.is_nan(), y.is_nan()) {
            (true, true) => 0x7fff,
            (true, _) | (_, true) if nan => 0x7fff,
            (true, _) => b,
            (_, true) => a,
            _ => {
                // Of two zeros the negative one is less.
                let less = x < y || x == y && x.is_sign_negative();
                if less != greater { a } else { b }
            }
        }
    }

    pub fn flush(self, a: u16) -> u16 {
        let exponent = if self == Half::F16 { 0x7c00 } else { 0x7f80 };
        if a & exponent == 0 { a & 0x8000 } else { a }
    }

    pub fn saturate(self, a: u16) -> u16 {
        self.nearest(saturate(self.decode(a)))
    }
}

/// `min` and `max` of f32: a number before not-a-number, unless that is wanted.
#[inline(always)]
pub(crate) fn choose32(a: f32, b: f32, greater: bool, nan: bool) -> f32 {
    if a.is_nan() || b.is_nan() {
        let none = a.is_nan() && b.is_nan();
        return if none || nan {
            f32::from_bits(0x7fff_ffff)
        } else if a.is_nan() {
            b
        } else {
            a
        };
    }
    let less = a < b || a == b && a.is_sign_negative();
    if less != greater { a } else { b }
}

/// As [`choose32`].
pub(crate) fn choose64(a: f64, b: f64, greater: bool) -> f64 {
    if a.is_nan() {
        return b;
    }
    let less = a < b || a == b && a.is_sign_negative();
    if b.is_nan() || less != greater { a } else { b }
}
