use safetensors::Dtype;

/// What a pickle may name of Python's modules. None of it is called; see
/// [`machine`](super::machine).
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Global {
    /// `collections.OrderedDict`, the class of a state dict.
    OrderedDict,
    /// `torch._utils._rebuild_tensor(storage, offset, size, stride)`, of torch before 0.4.
    Tensor,
    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])`.
    TensorV2,
    /// `torch._utils._rebuild_parameter(tensor, requires_grad, hooks)`.
    Parameter,
    /// `torch.FloatStorage` and the like: the type of a storage's elements.
    Storage(Dtype),
}

/// `None` for all that is not known: types without a counterpart in safetensors, other ways to build a
/// tensor (quantised, sparse, nested), and everything that a pickle could use to do harm.
pub(super) fn find(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor") => Global::Tensor,
        ("torch._utils", "_rebuild_tensor_v2") => Global::TensorV2,
        ("torch._utils", "_rebuild_parameter") => Global::Parameter,
        ("torch", "DoubleStorage") => Global::Storage(Dtype::F64),
        ("torch", "FloatStorage") => Global::Storage(Dtype::F32),
        ("torch", "HalfStorage") => Global::Storage(Dtype::F16),
        ("torch", "BFloat16Storage") => Global::Storage(Dtype::BF16),
        ("torch", "LongStorage") => Global::Storage(Dtype::I64),
        ("torch", "IntStorage") => Global::Storage(Dtype::I32),
        ("torch", "ShortStorage") => Global::Storage(Dtype::I16),
        ("torch", "CharStorage") => Global::Storage(Dtype::I8),
        ("torch", "ByteStorage") => Global::Storage(Dtype::U8),
        ("torch", "BoolStorage") => Global::Storage(Dtype::BOOL),
        _ => return None,
    })
}
