//! Tensors that are not where they say, and storages of another size.

use super::write::{Entry, Pickle, archive, checkpoint, small};
use super::{fixture, read, refused_for};
use crate::torch::opcode as op;

/// Of a tensor "w" in a storage of 6 floats.
fn one(offset: i128, size: &[i128], stride: &[i128]) -> Vec<u8> {
    checkpoint(Pickle::new().dict(&[("w", &|p| p.tensor(offset, size, stride))]).stop())
}

#[test]
fn tensors_inside_their_storage() {
    for (offset, size, stride, range) in [
        (0, &[2, 3][..], &[3, 1][..], 0..24),
        (4, &[2], &[1], 16..24),
        (5, &[], &[], 20..24),
        (5, &[1, 1], &[-7, 1 << 100], 20..24),
        (1, &[1, 2, 1, 2], &[0, 2, 9, 1], 4..20),
        (6, &[0], &[1], 24..24),
        (3, &[4, 0, 7], &[0, -1, 5], 12..12),
    ] {
        let file = one(offset, size, stride);
        let data = read(&small()).unwrap()["w"].range.len();
        assert_eq!(data, 24);
        let tensors = read(&file).unwrap();
        let at = file.windows(24).position(|w| w == [1; 24]).unwrap();
        assert_eq!(tensors["w"].range, range.start + at..range.end + at, "{size:?}");
    }
}

#[test]
fn tensors_outside_their_storage_or_of_no_size() {
    let huge = 1i128 << 63;
    for (offset, size, stride, why) in [
        (1, &[2, 3][..], &[3, 1][..], "6 elements from 1 on reach outside its storage of 6"),
        (7, &[0], &[1], "0 elements from 7 on reach outside"),
        (-1, &[1], &[1], "impossible offset"),
        (huge * 2, &[1], &[1], "impossible offset"),
        (huge * 2 - 1, &[6], &[1], "reach outside"),
        (0, &[huge], &[1], "reach outside"),
        (0, &[huge, 2], &[2, 1], "is impossible"),
        (0, &[huge, 2, 0], &[0, 0, 0], "is impossible"),
        (0, &[huge * 4], &[1], "is impossible"),
        (0, &[-1], &[1], "is impossible"),
        (0, &[2, 3], &[1], "2 sizes and 1 strides"),
        (0, &[1; 9], &[1; 9], "up to 8 integers"),
        (0, &[3, 2], &[1, 3], "not in row-major order"),
        (0, &[2, 2], &[3, 1], "not in row-major order"),
        (5, &[2], &[-1], "a negative stride"),
        (0, &[2], &[-1], "a negative stride"),
        (0, &[2, 3], &[-3, 1], "a negative stride"),
        (0, &[2, 3], &[0, 1], "stride 0"),
        (0, &[6], &[i128::MIN], "a negative stride"),
        (0, &[6], &[i128::MAX], "not in row-major order"),
    ] {
        println!("{offset} {size:?} {stride:?}");
        let file = one(offset, size, stride);
        refused_for(&file, "tensor w: ");
        refused_for(&file, why);
    }
    let named = |args: &'static [u8]| {
        let write =
            move |p: Pickle| p.global("torch._utils _rebuild_tensor_v2").raw(args).op(op::REDUCE);
        checkpoint(Pickle::new().dict(&[("w", &write)]).stop())
    };
    refused_for(&named(b"(NNNNNNt"), "tensor w: its storage is None");
    let write = |p: Pickle| {
        p.global("torch._utils _rebuild_tensor_v2")
            .op(op::MARK)
            .storage("0", "FloatStorage", 6)
            .raw(b"K\0X\x01\0\0\0a)NNt")
            .op(op::REDUCE)
    };
    let file = checkpoint(Pickle::new().dict(&[("w", &write)]).stop());
    refused_for(&file, "its shape or strides are not up to 8 integers");
}

#[test]
fn storages_of_another_size_or_type() {
    let with = |class: &'static str, elements, data: usize| {
        let pickle = Pickle::new().dict(&[("w", &|p| {
            p.global("torch._utils _rebuild_tensor")
                .op(op::MARK)
                .storage("0", class, elements)
                .raw(b"K\0)K\x01\x85tR")
        })]);
        archive(vec![
            Entry::new("x/data.pkl", pickle.stop()),
            Entry::new("x/data/0", vec![0; data]),
        ])
    };
    refused_for(&with("FloatStorage", 6, 24), "1 strides");
    refused_for(
        &with("FloatStorage", 6, 23),
        "storage 0 should hold 6 × F32, its entry has 23 bytes",
    );
    refused_for(&with("HalfStorage", 6, 24), "6 × F16");
    refused_for(&with("DoubleStorage", 1 << 61, 0), "its entry has 0 bytes");
    refused_for(&with("DoubleStorage", 1 << 64, 0), "the size of storage 0 is no size");
    refused_for(&with("DoubleStorage", -1, 0), "the size of storage 0 is no size");
    refused_for(&with("SixStorage", 1, 0), "torch.SixStorage");

    let twice = Pickle::new().raw(b"](").storage("0", "FloatStorage", 6);
    let twice = twice.storage("0", "IntStorage", 6).op(op::APPENDS).stop();
    refused_for(&checkpoint(twice), "storage 0 is 6 × F32 at first and 6 × I32 later");
    let other = Pickle::new().storage("../1", "FloatStorage", 6).stop();
    refused_for(&checkpoint(other), "the archive has no entry for storage ../1");
}

#[test]
fn tensors_that_share_bytes() {
    let pair = |one: (i128, i128), two: (i128, i128)| {
        checkpoint(
            Pickle::new()
                .dict(&[
                    ("a", &|p| p.tensor(one.0, &[one.1], &[1])),
                    ("b", &|p| p.tensor(two.0, &[two.1], &[1])),
                ])
                .stop(),
        )
    };
    for (one, two) in [((0, 3), (3, 3)), ((3, 3), (0, 3)), ((2, 2), (2, 2)), ((2, 0), (1, 3))] {
        assert_eq!(read(&pair(one, two)).unwrap().len(), 2);
    }
    for (one, two) in [((0, 3), (2, 3)), ((2, 3), (0, 3)), ((0, 6), (2, 1)), ((0, 2), (0, 3))] {
        refused_for(&pair(one, two), "share some of their bytes");
    }
    let names: Vec<_> = (0..9).map(|i| format!("w{i}")).collect();
    let tied = |n| {
        let tensor: &dyn Fn(Pickle) -> Pickle = &|p| p.tensor(0, &[6], &[1]);
        let entries: Vec<_> = names[..n].iter().map(|name| (&name[..], tensor)).collect();
        checkpoint(Pickle::new().dict(&entries).stop())
    };
    assert_eq!(read(&tied(8)).unwrap().len(), 8);
    refused_for(&tied(9), "more are the same tensor");
    let twice = Pickle::new()
        .dict(&[("w", &|p| p.tensor(0, &[1], &[1])), ("w", &|p| p.tensor(1, &[1], &[1]))]);
    refused_for(&checkpoint(twice.stop()), "tensor w is there twice");
}

#[test]
fn metadata_of_a_tensor_must_be_empty() {
    let with = |metadata: &'static [u8]| {
        let write = move |p: Pickle| {
            p.global("torch._utils _rebuild_tensor_v2")
                .op(op::MARK)
                .storage("0", "FloatStorage", 6)
                .raw(b"K\0K\x06\x85K\x01\x85\x89}")
                .raw(metadata)
                .raw(b"tR")
        };
        checkpoint(Pickle::new().dict(&[("w", &write)]).stop())
    };
    assert!(read(&with(b"N")).is_ok() && read(&with(b"}")).is_ok());
    refused_for(&with(b"}X\x04\0\0\0conj\x88s"), "a tensor with metadata");
}

#[test]
fn legacy_files_that_lie() {
    let file = fixture("legacy-tied.bin");
    let replaced = |from: &[u8], to: &[u8]| {
        let at = file.windows(from.len()).position(|w| w == from).unwrap();
        [&file[..at], to, &file[at + from.len()..]].concat()
    };
    assert_eq!(replaced(b"\x88", b"\x88"), file);
    refused_for(
        &replaced(b"little_endianq\x02\x88", b"little_endianq\x02\x89"),
        "not little-endian",
    );
    refused_for(&replaced(b"little_endian", b"brittle_endia"), "does not say whether");
    refused_for(&replaced(b"\x6c\xfc\x9c", b"\x6c\xfc\x9d"), "none that torch.save wrote");
    refused_for(&replaced(b"M\xe9\x03.", b"M\xe8\x03."), "version 1000");
    let count = 12u64.to_le_bytes();
    refused_for(&replaced(&count, &11u64.to_le_bytes()), "should have 12 × F32, it says 11");
    refused_for(&replaced(&count, &u64::MAX.to_le_bytes()), "it says 18446744073709551615");
}
