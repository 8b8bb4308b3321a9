//! Which chips have an instruction. The assembler refuses what the target of the module lacks, and so
//! does the emulator, for the instructions that kernels for several chips have to choose among.

use crate::ptx::Statement;

/// The least target that has the instruction.
pub(super) fn least(s: &Statement) -> u32 {
    let has = |name: &str| s.opcode.iter().any(|part| part == name);
    let last = s.opcode.last().map_or("", String::as_str);
    let bf16 = has("bf16") || has("bf16x2");
    match s.opcode[0].as_str() {
        "cp" | "redux" => 80,
        "mma" if bf16 || has("tf32") || has("m16n8k16") => 80,
        "ldmatrix" | "movmatrix" | "mma" => 75,
        // From f32 they came first.
        "cvt" if bf16 => {
            if last == "f32" {
                80
            } else {
                90
            }
        }
        "fma" | "min" | "max" | "neg" | "abs" if bf16 => 80,
        "min" | "max" if has("f16") || has("f16x2") || has("NaN") => 80,
        "mov" | "ld" | "st" => 0,
        _ if bf16 => 90,
        _ => 0,
    }
}
