//! The registers of a warp: for every virtual register, its value in all 32 lanes. An instruction is
//! a loop over the lanes, which the compiler turns into vector instructions.
//!
//! Constants and special registers are registers too, filled in before the warp starts; so an
//! operand is always an index.

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;

/// Which file a register is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    /// One bit a lane.
    Pred,
    /// Up to 32 bits a lane; 16-bit values have zeros above.
    Word,
    /// 64 bits a lane.
    Long,
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reg {
    pub class: Class,
    pub index: u32,
    /// 1, 16, 32 or 64.
    pub bits: u32,
}

/// The three files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Regs {
    pub preds: Vec<u32>,
    pub words: Vec<[u32; LANES]>,
    pub longs: Vec<[u64; LANES]>,
}

/// A pure instruction: what it does to the lanes of a mask.
pub(crate) type Pure = Box<dyn Fn(&mut Regs, u32) + Send + Sync>;

/// The type of a lane's value.
pub(crate) trait Word: Copy + Default + Send + Sync + 'static {
    const CLASS: Class;
    fn get(regs: &Regs, index: u32) -> [Self; LANES];
    fn put(regs: &mut Regs, index: u32, mask: u32, values: &[Self; LANES]);
}

macro_rules! word {
    ($type:ty, $class:ident, $file:ident, $from:expr, $to:expr) => {
        impl Word for $type {
            const CLASS: Class = Class::$class;

            #[inline(always)]
            fn get(regs: &Regs, index: u32) -> [Self; LANES] {
                let file = &regs.$file[index as usize];
                std::array::from_fn(|lane| $from(file[lane]))
            }

            #[inline(always)]
            fn put(regs: &mut Regs, index: u32, mask: u32, values: &[Self; LANES]) {
                let file = &mut regs.$file[index as usize];
                if mask == u32::MAX {
                    for lane in 0..LANES {
                        file[lane] = $to(values[lane]);
                    }
                } else {
                    for lane in 0..LANES {
                        if mask >> lane & 1 != 0 {
                            file[lane] = $to(values[lane]);
                        }
                    }
                }
            }
        }
    };
}

word!(u8, Word, words, |bits: u32| bits as u8, u32::from);
word!(i8, Word, words, |bits: u32| bits as i8, |value: i8| value as u8 as u32);
word!(u16, Word, words, |bits: u32| bits as u16, u32::from);
word!(i16, Word, words, |bits: u32| bits as i16, |value: i16| value as u16 as u32);
word!(u32, Word, words, |bits: u32| bits, |value: u32| value);
word!(i32, Word, words, |bits: u32| bits as i32, |value: i32| value as u32);
word!(f32, Word, words, f32::from_bits, f32::to_bits);
word!(u64, Long, longs, |bits: u64| bits, |value: u64| value);
word!(i64, Long, longs, |bits: u64| bits as i64, |value: i64| value as u64);
word!(f64, Long, longs, f64::from_bits, f64::to_bits);

impl Regs {
    /// Any register of the 32-bit or 64-bit file, one lane, zero-extended.
    #[inline(always)]
    pub fn lane(&self, reg: Reg, lane: usize) -> u64 {
        match reg.class {
            Class::Pred => (self.preds[reg.index as usize] >> lane & 1).into(),
            Class::Word => self.words[reg.index as usize][lane].into(),
            Class::Long => self.longs[reg.index as usize][lane],
        }
    }

    /// Sets one lane; a value too wide is cut.
    #[inline(always)]
    pub fn set_lane(&mut self, reg: Reg, lane: usize, value: u64) {
        match reg.class {
            Class::Pred => {
                let file = &mut self.preds[reg.index as usize];
                *file = *file & !(1 << lane) | ((value & 1) as u32) << lane;
            }
            Class::Word => {
                let value = value as u32;
                self.words[reg.index as usize][lane] =
                    if reg.bits == 16 { value & 0xffff } else { value };
            }
            Class::Long => self.longs[reg.index as usize][lane] = value,
        }
    }

    /// Sets the lanes of `mask` of a predicate.
    #[inline(always)]
    pub fn set_pred(&mut self, index: u32, mask: u32, value: u32) {
        let file = &mut self.preds[index as usize];
        *file = *file & !mask | value & mask;
    }
}

/// `d = f(a)`.
pub(crate) fn op1<A: Word, D: Word>(
    d: Reg,
    a: Reg,
    f: impl Fn(A) -> D + Send + Sync + 'static,
) -> Pure {
    debug_assert!(d.class == D::CLASS && a.class == A::CLASS);
    let (d, a) = (d.index, a.index);
    Box::new(move |regs, mask| {
        let a = A::get(regs, a);
        let mut out = [D::default(); LANES];
        for lane in 0..LANES {
            out[lane] = f(a[lane]);
        }
        D::put(regs, d, mask, &out);
    })
}

/// `d = f(a, b)`.
pub(crate) fn op2<A: Word, B: Word, D: Word>(
    d: Reg,
    [a, b]: [Reg; 2],
    f: impl Fn(A, B) -> D + Send + Sync + 'static,
) -> Pure {
    debug_assert!(d.class == D::CLASS && a.class == A::CLASS && b.class == B::CLASS);
    let (d, a, b) = (d.index, a.index, b.index);
    Box::new(move |regs, mask| {
        let (a, b) = (A::get(regs, a), B::get(regs, b));
        let mut out = [D::default(); LANES];
        for lane in 0..LANES {
            out[lane] = f(a[lane], b[lane]);
        }
        D::put(regs, d, mask, &out);
    })
}

/// `d = f(a, b, c)`.
pub(crate) fn op3<A: Word, B: Word, C: Word, D: Word>(
    d: Reg,
    [a, b, c]: [Reg; 3],
    f: impl Fn(A, B, C) -> D + Send + Sync + 'static,
) -> Pure {
    debug_assert!(d.class == D::CLASS && a.class == A::CLASS && b.class == B::CLASS);
    debug_assert!(c.class == C::CLASS);
    let (d, a, b, c) = (d.index, a.index, b.index, c.index);
    Box::new(move |regs, mask| {
        let (a, b, c) = (A::get(regs, a), B::get(regs, b), C::get(regs, c));
        let mut out = [D::default(); LANES];
        for lane in 0..LANES {
            out[lane] = f(a[lane], b[lane], c[lane]);
        }
        D::put(regs, d, mask, &out);
    })
}

/// `f(a, b)` as a mask of lanes.
pub(crate) fn compare<A: Word>(
    [a, b]: [Reg; 2],
    f: impl Fn(A, A) -> bool + Send + Sync + 'static,
) -> Box<dyn Fn(&Regs) -> u32 + Send + Sync> {
    debug_assert!(a.class == A::CLASS && b.class == A::CLASS);
    let (a, b) = (a.index, b.index);
    Box::new(move |regs| {
        let (a, b) = (A::get(regs, a), A::get(regs, b));
        let mut mask = 0;
        for lane in 0..LANES {
            mask |= u32::from(f(a[lane], b[lane])) << lane;
        }
        mask
    })
}
