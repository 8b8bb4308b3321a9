#![allow(missing_docs)]
use longmamba_model::{Cpu,CpuBackend,Model,SessionOptions};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let cpu = Cpu::available().find(|c| c.isa().to_string() == a[3]).unwrap();
    let model = Model::load(a[1].as_ref(), CpuBackend::with_cpu(cpu, Some(1)).unwrap()).unwrap();
    let tokens: Vec<u32> = a[2].split(',').map(|t| t.parse().unwrap()).collect();
    let chunk: usize = a[4].parse().unwrap();
    let mut s = model.session(SessionOptions { chunk_len: chunk, ..Default::default() }).unwrap();
    let n = tokens.len();
    s.prefill_scored(&tokens, 0..n, |_, l| println!("{}", l.iter().map(|v| v.to_string()).collect::<Vec<_>>().join(" "))).unwrap();
}
