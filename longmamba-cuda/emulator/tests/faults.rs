//! Each fault is found, and the same kernel without it runs.

mod common;

use common::Device;
use longmamba_cuda_emulator::{
    Access, Config, FaultKind, Launch, LoadError, Params, Place, Reason,
};

const FAULTS: &str = include_str!("ptx/faults.ptx");

/// Runs a kernel `(y, wrong)` right and then wrong.
fn twins(kernel: &str, launch: Launch) -> FaultKind {
    let device = Device::new(FAULTS);
    let y = device.zeros(1024);
    device.run(kernel, launch, Params::new().u64(y).u32(0)).expect("the right twin runs");
    device.fault(kernel, launch, Params::new().u64(y).u32(1))
}

/// Which of two warps comes first is not certain, only that a read and a write meet.
fn race(fault: FaultKind) {
    let FaultKind::Race { access, other_access, other_line, .. } = fault else {
        panic!("{fault:?}");
    };
    assert!(other_line > 0);
    assert!(
        (access, other_access) == (Access::Read, Access::Write)
            || (access, other_access) == (Access::Write, Access::Read)
    );
}

#[test]
fn past_the_end() {
    let device = Device::new(FAULTS);
    let y = device.zeros(400);
    let launch = Launch::linear(4, 32);
    let params = |wrong| Params::new().u64(y).u32(100).u32(wrong);
    device.run("past_end", launch, params(0)).expect("runs");
    assert_eq!(
        device.fault("past_end", launch, params(1)),
        FaultKind::Address {
            space: "global",
            address: y + 400,
            size: 4,
            reason: Reason::Outside { base: y, size: 400 }
        }
    );
    let before = y - 4;
    let fault = device.fault("past_end", launch, Params::new().u64(before).u32(100).u32(0));
    let outside = Reason::Outside { base: y, size: 400 };
    assert!(matches!(fault, FaultKind::Address { reason, .. } if reason == outside));
    let fault =
        device.fault("past_end", Launch::linear(4, 32), Params::new().u64(64).u32(9).u32(0));
    assert!(matches!(fault, FaultKind::Address { reason: Reason::Nothing, .. }));
}

#[test]
fn after_free() {
    let device = Device::new(FAULTS);
    let y = device.zeros(400);
    let params = Params::new().u64(y).u32(100).u32(0);
    device.emulator.free(y).expect("is there");
    let fault = device.fault("past_end", Launch::linear(4, 32), params);
    assert!(matches!(fault, FaultKind::Address { reason: Reason::Freed { size: 400, .. }, .. }));
    assert!(device.emulator.free(y).is_err());
}

#[test]
fn misaligned() {
    let fault = twins("misaligned", Launch::linear(1, 32));
    assert!(matches!(fault, FaultKind::Misaligned { space: "global", size: 4, .. }));
}

#[test]
fn past_shared_memory() {
    let fault = twins("past_shared", Launch::linear(1, 64).shared(256));
    assert_eq!(
        fault,
        FaultKind::Address {
            space: "shared",
            address: 256,
            size: 4,
            reason: Reason::Past { size: 256 }
        }
    );
}

#[test]
fn barrier_not_reached() {
    let fault = twins("divergent_barrier", Launch::linear(1, 64));
    assert!(matches!(fault, FaultKind::Barrier { missing: 40..64, .. }), "{fault:?}");
}

#[test]
fn read_after_write() {
    race(twins("missing_barrier", Launch::linear(1, 64)));
}

#[test]
fn write_after_read() {
    race(twins("write_after_read", Launch::linear(1, 64)));
}

#[test]
fn exchange_without_syncwarp() {
    let fault = twins("exchange_in_warp", Launch::linear(1, 64));
    assert!(matches!(fault, FaultKind::Race { access: Access::Read, .. }));
}

#[test]
fn copy_not_waited_for() {
    let device = Device::new(FAULTS);
    let (x, y) = (device.zeros(256), device.zeros(256));
    let params = |wrong| Params::new().u64(x).u64(y).u32(wrong);
    device.run("missing_wait", Launch::linear(1, 64), params(0)).expect("runs");
    let fault = device.fault("missing_wait", Launch::linear(1, 64), params(1));
    assert!(matches!(fault, FaultKind::Pending { access: Access::Read, other_line: 1.., .. }));
}

#[test]
fn shuffle_not_reached() {
    let fault = twins("missing_lanes", Launch::linear(1, 32));
    assert_eq!(fault, FaultKind::Collective { mask: u32::MAX, missing: 20, place: Place::Ended });
}

#[test]
fn blocks_that_write_the_same() {
    let fault = twins("two_blocks", Launch::linear(4, 32));
    assert!(matches!(fault, FaultKind::BlockRace { other_block: Some(0..4), .. }));
}

#[test]
fn a_block_that_reads_what_another_wrote() {
    let config = Config { threads: 1, ..Config::default() };
    let device = Device::with(config, FAULTS);
    let y = device.zeros(1024);
    let params = |wrong| Params::new().u64(y).u32(wrong);
    device.run("reads_other_block", Launch::linear(4, 32), params(0)).expect("runs");
    let fault = device.fault("reads_other_block", Launch::linear(4, 32), params(1));
    assert!(matches!(fault, FaultKind::BlockRace { other_block: Some(0), .. }));
}

#[test]
fn no_end() {
    let config = Config { limit: 10_000_000, ..Config::default() };
    let device = Device::with(config, FAULTS);
    let y = device.zeros(4);
    let params = |wrong| Params::new().u64(y).u32(wrong);
    device.run("waits_forever", Launch::linear(1, 1), params(0)).expect("runs");
    device.emulator.fill(y, &[0], 4).expect("is there");
    let fault = device.fault("waits_forever", Launch::linear(1, 1), params(1));
    assert_eq!(fault, FaultKind::Limit(10_000_000));
}

#[test]
fn traps() {
    let device = Device::new(FAULTS);
    device.run("traps", Launch::linear(1, 32), Params::new().u32(0)).expect("runs");
    assert_eq!(device.fault("traps", Launch::linear(1, 32), Params::new().u32(1)), FaultKind::Trap);
}

#[test]
fn unknown_instructions_and_modifiers() {
    let device = Device::new(FAULTS);
    for (body, name) in [
        ("frobnicate.u32;", "frobnicate.u32"),
        ("add.frob.s32 %r1, %r1, %r1;", "add.frob.s32"),
        ("ld.frob.global.u32 %r1, [%rd1];", "ld.frob.global.u32"),
        ("add.s31 %r1, %r1, %r1;", "add.s31"),
        ("fma.f32 %f1, %f1, %f1, %f1;", "fma.f32"),
    ] {
        let text = format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f() {{\n\
             .reg .b32 %r<2>;\n.reg .f32 %f<2>;\n.reg .b64 %rd<2>;\n{body}\nret;\n}}\n"
        );
        let error = device.emulator.load(&text).map(|_| ()).expect_err("is not known");
        assert_eq!(error, LoadError::Unsupported { line: 8, what: format!("`{name}`") });
    }
}

#[test]
fn instructions_of_newer_chips() {
    let device = Device::new(FAULTS);
    for (body, name, least) in [
        ("cp.async.wait_all;", "cp.async.wait_all", 80),
        ("redux.sync.add.u32 %r1, %r1, -1;", "redux.sync.add.u32", 80),
        ("cvt.rn.bf16.f32 %h, %f1;", "cvt.rn.bf16.f32", 80),
        ("add.bf16 %h, %h, %h;", "add.bf16", 90),
    ] {
        let text = |target: u32| {
            format!(
                ".version 8.0\n.target sm_{target}\n.address_size 64\n.visible .entry f() {{\n\
                 .reg .b32 %r<2>;\n.reg .f32 %f<2>;\n.reg .b16 %h;\n{body}\nret;\n}}\n"
            )
        };
        let error = device.emulator.load(&text(75)).map(|_| ()).expect_err("is not known");
        let what = format!("`{name}` before sm_{least}");
        assert_eq!(error, LoadError::Unsupported { line: 8, what });
        let newest = Config { capability: 90, ..Config::default() };
        Device::with(newest, &text(least));
    }
}

#[test]
fn threads_that_do_not_exist_are_not_waited_for() {
    // Half a warp: its last lanes never began.
    let device = Device::new(include_str!("ptx/faults.ptx"));
    let y = device.zeros(256);
    let params = Params::new().u64(y).u32(0);
    device.run("missing_lanes", Launch::linear(1, 16), params.clone()).expect("runs");
    device.run("exchange_in_warp", Launch::linear(1, 48), params).expect("runs");
}

#[test]
fn fresh_memory_is_nan() {
    let device = Device::new(FAULTS);
    let y = device.emulator.alloc(16).expect("there is room");
    assert!(device.read_floats(y, 4).iter().all(|y| y.is_nan()));
}
