//! Runs one instruction on many rows of sources: the kernel of a test reads up to three sources for
//! each thread, executes the instruction, and writes the result.

use super::Device;
use longmamba_cuda_emulator::{Config, Launch, Params};

/// A type of a register and of what is loaded into it.
#[derive(Clone, Copy, PartialEq)]
pub enum Reg {
    B16,
    B32,
    B64,
    Pred,
}

impl Reg {
    fn declared(self) -> &'static str {
        match self {
            Reg::B16 => "b16",
            Reg::B32 | Reg::Pred => "b32",
            Reg::B64 => "b64",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Reg::B16 => 2,
            Reg::B32 | Reg::Pred => 4,
            Reg::B64 => 8,
        }
    }
}

/// Runs `instruction`, which names `%d` and `%s0` to `%s2`, on each row of sources.
pub fn run(instruction: &str, dest: Reg, sources: &[Reg], rows: &[Vec<u64>]) -> Vec<u64> {
    let mut text = String::from(
        ".version 8.0\n.target sm_90\n.address_size 64\n\
         .visible .entry op(.param .u64 in, .param .u64 out, .param .u32 n) {\n\
         .reg .pred %p, %q;\n.reg .b32 %i, %n, %t;\n.reg .b64 %in, %out, %at;\n",
    );
    text += &match dest {
        Reg::Pred => ".reg .pred %d;\n".to_owned(),
        _ => format!(".reg .{} %d;\n", dest.declared()),
    };
    for (i, source) in sources.iter().enumerate() {
        text += &format!(".reg .{} %s{i};\n", source.declared());
    }
    text += "ld.param.u64 %in, [in]; ld.param.u64 %out, [out]; ld.param.u32 %n, [n];\n\
             mov.u32 %i, %ctaid.x; mov.u32 %t, %ntid.x; mov.u32 %at_, %tid.x;\n\
             mad.lo.u32 %i, %i, %t, %at_;\nsetp.ge.u32 %p, %i, %n;\n@%p ret;\n\
             mul.wide.u32 %at, %i, 24;\nadd.u64 %in, %in, %at;\n\
             mul.wide.u32 %at, %i, 8;\nadd.u64 %out, %out, %at;\n";
    text = text.replace("%at_", "%u").replace(".reg .b32 %i, %n, %t;", ".reg .b32 %i, %n, %t, %u;");
    for (i, source) in sources.iter().enumerate() {
        text += &format!("ld.global.{} %s{i}, [%in+{}];\n", source.declared(), 8 * i);
    }
    text += instruction;
    text += "\n";
    text += &match dest {
        Reg::Pred => "selp.b32 %u, 1, 0, %d;\nst.global.b32 [%out], %u;\n".to_owned(),
        _ => format!("st.global.{} [%out], %d;\n", dest.declared()),
    };
    text += "ret;\n}\n";
    let device = Device::with(Config { capability: 90, ..Config::default() }, &text);
    let mut bytes = Vec::new();
    for row in rows {
        for i in 0..3 {
            bytes.extend_from_slice(&row.get(i).copied().unwrap_or(0).to_le_bytes());
        }
    }
    let (input, output) = (device.upload(&bytes), device.zeros(rows.len() * 8));
    let params = Params::new().u64(input).u64(output).u32(rows.len() as u32);
    device.run("op", Launch::linear(rows.len().div_ceil(64) as u32, 64), params).expect("runs");
    let mut bytes = vec![0; rows.len() * 8];
    device.emulator.read(output, &mut bytes).expect("the range is inside");
    let mask = u64::MAX >> (64 - 8 * dest.bytes());
    bytes.chunks(8).map(|c| u64::from_le_bytes(c.try_into().expect("eight")) & mask).collect()
}

/// All combinations of the values, as rows of `count`.
pub fn rows(values: &[u64], count: usize) -> Vec<Vec<u64>> {
    let mut rows = vec![Vec::new()];
    for _ in 0..count {
        rows = rows
            .iter()
            .flat_map(|row| {
                values.iter().map(|value| {
                    let mut row = row.clone();
                    row.push(*value);
                    row
                })
            })
            .collect();
    }
    rows
}

pub const INTS: [u64; 12] = [
    0,
    1,
    2,
    7,
    31,
    100,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1234_5678_9abc_def0,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_8000,
];

pub const FLOATS: [f32; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1.5,
    0.1,
    -3.7,
    1e-3,
    65504.0,
    1e30,
    -2.5e-30,
    3.4e38,
    1e-40,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

pub fn floats() -> Vec<u64> {
    FLOATS.iter().map(|f| f.to_bits().into()).collect()
}

pub fn check(
    name: &str,
    dest: Reg,
    sources: &[Reg],
    values: &[u64],
    wanted: impl Fn(u64, u64, u64) -> u64,
) {
    let operands: String = (0..sources.len()).map(|i| format!(", %s{i}")).collect();
    let mut rows = rows(values, sources.len());
    for row in &mut rows {
        for (value, source) in row.iter_mut().zip(sources) {
            *value &= u64::MAX >> (64 - 8 * source.bytes());
        }
    }
    let got = run(&format!("{name} %d{operands};"), dest, sources, &rows);
    for (row, got) in rows.iter().zip(got) {
        let at = |i: usize| row.get(i).copied().unwrap_or(0);
        let wanted = wanted(at(0), at(1), at(2)) & (u64::MAX >> (64 - 8 * dest.bytes()));
        assert_eq!(got, wanted, "{name} of {row:x?}: {got:#x} instead of {wanted:#x}");
    }
}
