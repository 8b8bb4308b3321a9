//! Races among the blocks of a launch: found whichever block comes first, and not seen where the blocks
//! order themselves.

mod common;

use common::Device;
use longmamba_cuda_emulator::{Access, Config, FaultKind, Launch, LaunchError, Params};

/// A kernel of blocks of one thread, with `x`, `counter`, `block`, the address `own` of the block's half
/// word of `x` and `next` of the next block's.
fn kernel(body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n\
         .visible .entry f(.param .u64 px, .param .u64 pcounter) {{\n\
         .reg .pred %p;\n.reg .b16 %h<3>;\n.reg .b32 %block, %blocks, %before, %r<3>;\n\
         .reg .b64 %x, %counter, %own, %next, %rd<2>;\n\
         ld.param.u64 %x, [px];\nld.param.u64 %counter, [pcounter];\n\
         mov.u32 %block, %ctaid.x;\nmov.u32 %blocks, %nctaid.x;\n\
         mul.wide.u32 %rd1, %block, 2;\nadd.s64 %own, %x, %rd1;\nadd.s64 %next, %own, 2;\n\
         {body}\nDONE:\nret;\n}}\n"
    )
}

const BLOCKS: u32 = 4;

/// Runs it in order, on one thread of the host; returns the lines of a race.
fn run(body: &str) -> Option<(Access, Access, Option<u32>, [String; 2])> {
    let text = kernel(body);
    let device = Device::with(Config { threads: 1, ..Config::default() }, &text);
    let params = Params::new().u64(device.zeros(64)).u64(device.zeros(64));
    // A second launch has nothing to do with the first.
    for _ in 0..2 {
        let fault = match device.run("f", Launch::linear(BLOCKS, 1), params.clone()) {
            Ok(_) => continue,
            Err(LaunchError::Fault(fault)) => fault,
            Err(other) => panic!("{other}"),
        };
        println!("{fault}");
        let FaultKind::BlockRace { access, other_access, other_block, other_line, .. } = fault.kind
        else {
            panic!("{fault}");
        };
        let line = |line: u32| text.lines().nth(line as usize - 1).unwrap().to_owned();
        let lines = [line(fault.line), line(other_line)];
        return Some((access, other_access, other_block, lines));
    }
    None
}

const READ_OWN: &str = "ld.global.u16 %h1, [%own];\n";
const WRITE_OWN: &str = "st.global.u16 [%own], %h1;\n";
const READ_NEXT: &str = "ld.global.u16 %h2, [%next];\n";
const READ_FIRST: &str = "ld.global.u16 %h1, [%x];\n";
const WRITE_FIRST: &str = "st.global.u16 [%x], %h1;\n";

#[test]
fn halves_of_a_word_are_apart() {
    assert_eq!(run(&[READ_OWN, WRITE_OWN, READ_OWN].concat()), None);
    assert_eq!(run(READ_FIRST), None);
}

#[test]
fn a_block_that_reads_what_a_later_one_writes() {
    let race = run(&[READ_OWN, READ_NEXT, WRITE_OWN].concat());
    let lines = [WRITE_OWN, READ_NEXT].map(|line| line.trim().to_owned());
    assert_eq!(race, Some((Access::Write, Access::Read, Some(0), lines)));
}

#[test]
fn a_block_that_writes_what_others_read_too() {
    let last_writes = "setp.ne.u32 %p, %block, 3;\n@%p bra DONE;\n";
    let race = run(&[READ_FIRST, last_writes, WRITE_FIRST].concat());
    let lines = [WRITE_FIRST, READ_FIRST].map(|line| line.trim().to_owned());
    assert_eq!(race, Some((Access::Write, Access::Read, Some(0), lines)));
}

/// All read the first half word; the last to arrive writes it.
fn hand_over(before: &str, arrive: &str, after: &str, who: &str) -> String {
    format!(
        "{before}{arrive}{after}sub.u32 %r1, %blocks, 1;\nsetp.ne.u32 %p, %before, {who};\n\
         @%p bra DONE;\n{WRITE_FIRST}"
    )
}

const ARRIVE: &str = "atom.acq_rel.gpu.global.inc.u32 %before, [%counter], 3;\n";

#[test]
fn the_last_block_to_arrive_may_write_what_all_read() {
    assert_eq!(run(&hand_over(READ_FIRST, ARRIVE, "", "%r1")), None);
    let relaxed = ARRIVE.replace("acq_rel", "relaxed");
    let fenced = ["membar.gl;\n", &relaxed, "membar.gl;\n"].concat();
    assert_eq!(run(&hand_over(READ_FIRST, &fenced, "", "%r1")), None);
}

#[test]
fn a_hand_over_that_is_none() {
    let raced = |body: String| run(&body).map(|(access, other, ..)| (access, other));
    let (late, early) = ((Access::Write, Access::Read), (Access::Read, Access::Write));
    // Nothing is released.
    let relaxed = ARRIVE.replace("acq_rel", "relaxed");
    assert_eq!(raced(hand_over(READ_FIRST, &relaxed, "", "%r1")), Some(late));
    // Who arrived still reads.
    assert_eq!(raced(hand_over("", ARRIVE, READ_FIRST, "%r1")), Some(late));
    // The first writes while the others have yet to read.
    assert_eq!(raced(hand_over(READ_FIRST, ARRIVE, "", "0")), Some(early));
    // Each waits at a place of its own.
    let apart = ["add.s64 %counter, %counter, %rd1;\nadd.s64 %counter, %counter, %rd1;\n", ARRIVE];
    assert_eq!(raced(hand_over(READ_FIRST, &apart.concat(), "", "0")), Some(early));
}
