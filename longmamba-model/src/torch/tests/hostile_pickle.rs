//! Pickles that want to run code, or to grow.

use super::write::{Pickle, checkpoint};
use super::{read, refused_for};
use crate::torch::machine::{self, MAX_PICKLE};
use crate::torch::opcode as op;
use crate::torch::{Checked, Fault};

fn refused(pickle: Vec<u8>, why: &str) {
    refused_for(&checkpoint(pickle), why);
}

/// The number of bytes that were read.
fn run(pickle: &[u8]) -> Checked<usize> {
    machine::run(pickle, 0, pickle.len()).map(|pickle| pickle.end)
}

#[test]
fn unknown_opcodes_are_named() {
    let mut known = 0;
    for byte in 0..=u8::MAX {
        let pickle = Pickle::new().op(byte).stop();
        let message = match run(&pickle) {
            Err(Fault::Refused(message)) => message,
            // Known, whatever it lacks.
            _ => {
                known += 1;
                assert!(op::name(byte).is_some(), "{byte:#x}");
                continue;
            }
        };
        match op::name(byte) {
            Some(name) => assert_eq!(message, format!("opcode {name} (0x{byte:02x}) at byte 2")),
            None => {
                assert_eq!(message, format!("byte 0x{byte:02x}, which is no opcode, at byte 2"))
            }
        }
    }
    assert_eq!(known, 37);
    // Instances by other ways than a call.
    for (opcode, name) in [(op::INST, "INST"), (op::OBJ, "OBJ"), (op::NEWOBJ, "NEWOBJ")] {
        refused(Pickle::new().op(op::MARK).op(opcode).stop(), &format!("opcode {name} "));
    }
    for (opcode, name) in [(op::EXT1, "EXT1"), (op::NEWOBJ_EX, "NEWOBJ_EX"), (op::PERSID, "PERSID")]
    {
        refused(Pickle::new().op(opcode).stop(), &format!("opcode {name} "));
    }
}

#[test]
fn unknown_globals_are_named() {
    for name in [
        "os system",
        "posix system",
        "builtins eval",
        "builtins getattr",
        "torch.storage _load_from_bytes",
        "torch._utils _rebuild_tensor_v3",
        "torch._utils _rebuild_qtensor",
        "torch UntypedStorage",
        "torch load",
        "collections Counter",
        "_codecs encode",
    ] {
        let dotted = format!("asks for {},", name.replace(' ', "."));
        refused(Pickle::new().global(name).stop(), &dotted);
        let (module, name) = name.split_once(' ').unwrap();
        refused(Pickle::new().text(module).text(name).op(op::STACK_GLOBAL).stop(), &dotted);
    }
    // A name that would mess up a terminal, or fill it.
    refused(Pickle::new().global("o\x1b[2Js system").stop(), "o\\u{1b}[2Js.system");
    refused(Pickle::new().global(&format!("{} b", "a".repeat(150))).stop(), "aaa….b");
    refused(Pickle::new().global(&format!("{} b", "a".repeat(500))).stop(), "has no end");
}

#[test]
fn calls_of_anything_but_the_known_functions() {
    let storage = "torch FloatStorage";
    let v2 = "torch._utils _rebuild_tensor_v2";
    let call = |p: Pickle, args: &[u8]| p.raw(args).op(op::REDUCE).stop();
    refused(call(Pickle::new().global(storage), b")"), "a call of Storage(F32)");
    refused(call(Pickle::new().global(v2), b")"), "a call of TensorV2 with 0 arguments");
    refused(call(Pickle::new().global(v2), b"N"), "a call of a function");
    refused(call(Pickle::new().text("f"), b")"), "a call of a string");
    let dict = "collections OrderedDict";
    refused(call(Pickle::new().global(dict), b"]\x85"), "OrderedDict with 1 arguments");
    let parameter = Pickle::new().global("torch._utils _rebuild_parameter");
    refused(call(parameter, b"NNN\x87"), "Parameter with 3 arguments");
    // Attributes, and items of what has none.
    refused(Pickle::new().raw(b"]}b").stop(), "attributes of a list");
    refused(Pickle::new().raw(b"}]b").stop(), "attributes of a dictionary");
    refused(Pickle::new().raw(b")Na").stop(), "appended to a tuple");
    refused(Pickle::new().raw(b"]NNs").stop(), "set in a list");
    // Storages of another kind.
    refused(Pickle::new().raw(b")Q").stop(), "a persistent object that is no storage");
    let module = Pickle::new().op(op::MARK).text("module").raw(b"NNNNtQ").stop();
    refused(module, "a persistent object of the kind module");
}

#[test]
fn the_stack_is_guarded() {
    for (ops, why) in [
        (&b""[..], "ends with 0 objects"),
        (b"NN", "ends with 2 objects"),
        (b"N(", "ends with 1 objects and 1 marks"),
        (b"a", "no object"),
        (b"}(N(s", "no object"),
        (b"}N(a", "no object"),
        (b"t", "no mark"),
        (b"Nu", "no mark"),
        (b"(}(Nu", "a key without value"),
        (b"N\x86", "no object"),
        (b"h\x05", "no object 5"),
        (b"j\xff\xff\xff\xff", "no object 4294967295"),
        (b"q\0", "no object"),
        (b"\x94", "no object"),
        (b"X\xff\xff\xff\xff", "truncated"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "truncated"),
        (b"\x95\xff\xff\xff\xff\xff\xff\xff\xff", "truncated"),
        (b"\x8a\x11", "truncated"),
        (b"\x8a\x1100000000000000000", "the integer at byte 2 has 17 bytes"),
        (b"X\x01\0\0\0\xff", "not UTF-8"),
        (b"N}\x93", "has no name"),
    ] {
        println!("{ops:?}");
        let fault = run(&Pickle::new().raw(ops).stop()).unwrap_err();
        let Fault::Malformed(message) = fault else { panic!("{fault:?}") };
        assert!(message.contains(why), "{message:?} should contain {why:?}");
    }
    refused(Pickle::new().raw(b"}.}").stop(), "2 bytes too many");
    assert_eq!(run(b"\x80\x06N."), Err(Fault::Refused("pickle protocol 6".into())));
    assert_eq!(run(b"(dp0\n."), Err(Fault::Refused("pickle protocol 0 or 1".into())));
}

/// Each is a few opcodes repeated as often as a pickle may have bytes.
#[test]
fn growth_is_bounded() {
    let fill = |start: &[u8], repeated: &[u8]| {
        let times = (MAX_PICKLE - 10 - start.len()) / repeated.len();
        Pickle::new().raw(start).raw(&repeated.repeat(times)).stop()
    };
    for (what, start, repeated, why) in [
        ("marks", &b""[..], &b"("[..], "marks"),
        ("marks and lists", b"", b"(]", "marks"),
        ("objects", b"", b"N", "objects"),
        ("dictionaries", b"", b"}", "objects"),
        ("tuples in tuples", b")", b"\x85", "objects"),
        // A tuple of the last tuple twice: 2ⁿ leaves, if it were copied.
        ("laughs", b")q\0", b"h\0\x86q\0", "objects"),
        ("lists of themselves", b"]q\0", b"h\0a", "ends"),
        ("dictionaries of themselves", b"}q\0", b"h\0h\0s", "ends"),
        ("pushes from the memo", b"Nq\0", b"h\0", "a stack"),
        ("puts", b"N", b"\x94", "memo"),
        ("frames", b"N", b"\x95\0\0\0\0\0\0\0\0", "ends"),
        ("tuples of the memo", b"Nq\0", b"h\0\x85", "objects"),
    ] {
        println!("{what}");
        let mut pickle = fill(start, repeated);
        if why == "ends" {
            // Nothing grows but the bytes that were read: the result is one object.
            assert_eq!(run(&pickle), Ok(pickle.len()));
            pickle.extend([0; 20]);
        }
        let result = run(&pickle);
        if why != "ends" {
            let Err(Fault::Malformed(message)) = result else { panic!("{result:?}") };
            assert!(message.contains(why), "{message:?} should contain {why:?}");
        }
    }
    refused(Pickle::new().raw(&vec![b'N'; MAX_PICKLE]).stop(), "more than 16777216");
}

/// A dictionary with itself in it, and two names for one list.
#[test]
fn objects_in_themselves_do_no_harm() {
    let pickle = Pickle::new().raw(b"}q\0").text("me").raw(b"h\0s").stop();
    refused(pickle, "entry me is a dictionary");
    let shared = Pickle::new().raw(b"}(").text("a").raw(b"]q\x01").text("b").raw(b"h\x01u").stop();
    assert!(read(&checkpoint(shared)).unwrap().is_empty());
}
