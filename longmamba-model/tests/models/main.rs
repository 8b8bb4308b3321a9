//! Models as a program that embeds them sees them. One program for all these tests, because each would have the
//! models compiled anew for itself.

mod batch;
mod channel_scans;
#[path = "../common/mod.rs"]
mod common;
mod convert;
mod embedding;
mod fixtures;
mod hostile;
mod hybrid;
mod methods;
mod metrics;
mod oracle;
mod other_process;
mod placement;
mod published;
mod quantized;
mod reference;
mod rounding;
mod session;
mod texts;
