//! A mistake made on purpose: tests show with it that the checks, and the tests themselves, can fail.

use std::ops::Range;

/// What is wrong with a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    /// A barrier of the block is left out.
    Barrier,
    /// An access to shared memory goes to the next word.
    Offset,
    /// An access to global memory goes far past its allocation.
    Past,
}

/// One mistake in one kernel: `KERNEL barrier N`, `KERNEL offset N` or `KERNEL past N`, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    kernel: String,
    mistake: Mistake,
    number: usize,
}

impl Mutation {
    /// That of the variable `LONGMAMBA_EMULATOR_MUTATION`; `None` where it is not set.
    ///
    /// # Panics
    /// Where the variable cannot be read: a test that mutates nothing would prove nothing.
    pub fn from_env() -> Option<Self> {
        let text = std::env::var("LONGMAMBA_EMULATOR_MUTATION").ok()?;
        Some(Self::parse(&text).unwrap_or_else(|| panic!("{text:?} is no mutation")))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let kernel = words.next()?.to_owned();
        let mistake = match words.next()? {
            "barrier" => Mistake::Barrier,
            "offset" => Mistake::Offset,
            "past" => Mistake::Past,
            _ => return None,
        };
        Some(Mutation { kernel, mistake, number: words.next()?.parse().ok()? })
    }

    /// The PTX with the mistake in it; `None` where it has no such kernel, or not so many places.
    pub fn apply(&self, ptx: &str) -> Option<String> {
        let place = self.mistake.places(&ptx[body(ptx, &self.kernel)?]).nth(self.number)?;
        let start = body(ptx, &self.kernel)?.start;
        let line = &ptx[start + place.start..start + place.end];
        let changed = match self.mistake {
            Mistake::Barrier => String::new(),
            Mistake::Offset => moved(line, 4)?,
            Mistake::Past => moved(line, 1 << 30)?,
        };
        Some([&ptx[..start + place.start], &changed, &ptx[start + place.end..]].concat())
    }

    /// All mutations of a kernel that a check or the result has to notice; an access far past its
    /// allocation, which no check can miss, is not among them.
    pub fn all(ptx: &str, kernel: &str) -> Vec<String> {
        let Some(body) = body(ptx, kernel) else { return Vec::new() };
        let of = |mistake: Mistake, name: &str| {
            let count = mistake.places(&ptx[body.clone()]).count();
            (0..count).map(|n| format!("{kernel} {name} {n}")).collect::<Vec<_>>()
        };
        [of(Mistake::Barrier, "barrier"), of(Mistake::Offset, "offset")].concat()
    }
}

impl Mistake {
    /// The lines of a kernel that can be changed so.
    fn places(self, body: &str) -> impl Iterator<Item = Range<usize>> {
        let mut end = 0;
        body.split_inclusive('\n').filter_map(move |line| {
            let start = end;
            end += line.len();
            let found = match self {
                Mistake::Barrier => line.contains("bar.sync") || line.contains("barrier.sync"),
                Mistake::Offset => accesses(line, "shared"),
                Mistake::Past => accesses(line, "global"),
            };
            found.then_some(start..end)
        })
    }
}

/// Whether the line loads from a state space or stores to it.
fn accesses(line: &str, space: &str) -> bool {
    let names = ["ld", "st"].map(|name| format!("{name}.{space}"));
    names.iter().any(|name| line.contains(name)) && line.contains(']')
}

/// The line with `by` more bytes in its address.
fn moved(line: &str, by: i64) -> Option<String> {
    let (address, rest) = line.split_once(']')?;
    let (base, offset) = match address.split_once('+') {
        Some((base, offset)) => (base, offset.trim().parse::<i64>().ok()?),
        None => (address, 0),
    };
    Some(format!("{base}+{}]{rest}", offset + by))
}

/// From the name of a kernel to its closing brace.
fn body(ptx: &str, kernel: &str) -> Option<Range<usize>> {
    let start = ptx.find(&format!(".entry {kernel}("))?;
    let len = ptx[start..].find("\n}")?;
    Some(start..start + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = ".entry a(\n)\n{\n\tbar.sync 0;\n\tret;\n}\n.entry b(\n)\n{\n\tst.shared.f32 [%r1], %f1;\n\t\
                       bar.sync 0;\n\tld.shared.f32 %f2, [%r1+8];\n\tbar.sync 0;\n\tst.global.f32 [%rd1+4], %f2;\n\t\
                       ret;\n}\n";

    #[test]
    fn the_right_line_of_the_right_kernel() {
        let all = Mutation::all(PTX, "b");
        assert_eq!(all, ["b barrier 0", "b barrier 1", "b offset 0", "b offset 1"]);
        let apply = |text: &str| Mutation::parse(text).unwrap().apply(PTX);
        let lines = |text: &str| apply(text).unwrap().lines().count();
        assert_eq!(lines("a barrier 0") + 1, PTX.lines().count());
        assert!(apply("b barrier 1").unwrap().contains("[%r1+8];\n\tst.global"));
        assert!(apply("b offset 0").unwrap().contains("st.shared.f32 [%r1+4], %f1;"));
        assert!(apply("b offset 1").unwrap().contains("[%r1+12];"));
        assert!(apply("b past 0").unwrap().contains("st.global.f32 [%rd1+1073741828], %f2;"));
        assert_eq!((apply("b barrier 2"), apply("c barrier 0")), (None, None));
        assert!(Mutation::parse("b nothing 0").is_none() && Mutation::parse("b").is_none());
    }
}
