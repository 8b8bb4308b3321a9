/// How matrix products are taken where the weight has 16 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Everything in f32: operands, products and sums.
    #[default]
    Exact,
    /// On tensor cores where there are any for the weight's type: activations are rounded to that type,
    /// sums stay f32. In f16 what is beyond 65504 becomes infinite.
    Tensor,
}
