//! The PTX that this crate carries.

/// A source file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Module {
    Attention,
    Conv1d,
    Elementwise,
    Matmul,
    Norm,
    Normed,
    Rope,
    Sample,
    Scan,
    Ssd,
    Step,
}

macro_rules! text {
    ($target:literal, $module:expr) => {
        match $module {
            Module::Attention => include_str!(concat!("../ptx/", $target, "/attention.ptx")),
            Module::Conv1d => include_str!(concat!("../ptx/", $target, "/conv1d.ptx")),
            Module::Elementwise => include_str!(concat!("../ptx/", $target, "/elementwise.ptx")),
            Module::Matmul => include_str!(concat!("../ptx/", $target, "/matmul.ptx")),
            Module::Norm => include_str!(concat!("../ptx/", $target, "/norm.ptx")),
            Module::Normed => include_str!(concat!("../ptx/", $target, "/normed.ptx")),
            Module::Rope => include_str!(concat!("../ptx/", $target, "/rope.ptx")),
            Module::Sample => include_str!(concat!("../ptx/", $target, "/sample.ptx")),
            Module::Scan => include_str!(concat!("../ptx/", $target, "/scan.ptx")),
            Module::Ssd => include_str!(concat!("../ptx/", $target, "/ssd.ptx")),
            Module::Step => include_str!(concat!("../ptx/", $target, "/step.ptx")),
        }
    };
}

impl Module {
    /// Its PTX for a device: compute_80 where the device is that new, else compute_75.
    pub(crate) fn text(self, capability: (u32, u32)) -> &'static str {
        match capability >= (8, 0) {
            true => text!("compute_80", self),
            false => text!("compute_75", self),
        }
    }
}

/// The size of the one parameter of kernel `name`, as its PTX declares it.
pub(crate) fn parameter_bytes(text: &str, name: &str) -> Option<usize> {
    let entry = format!(".entry {name}(");
    let (_, rest) = text.split_once(&entry)?;
    let (parameters, _) = rest.split_once(')')?;
    let (_, size) = parameters.rsplit_once('[')?;
    size.split_once(']')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_parameter() {
        let text = ".visible .entry first(\n\t.param .align 8 .b8 first_param_0[72]\n)\n{ret;}\n\
                    .visible .entry second(\n\t.param .align 4 .b8 second_param_0[8]\n)\n{ret;}";
        assert_eq!(parameter_bytes(text, "first"), Some(72));
        assert_eq!(parameter_bytes(text, "second"), Some(8));
        assert_eq!(parameter_bytes(text, "third"), None);
    }
}
