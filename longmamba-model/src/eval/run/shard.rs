//! Some of a run's samples, for one of several machines.

use std::str::FromStr;

/// Every `count`-th sample, from number `index` on: `0/1` is all of them, `0/4` to `3/4` are what four machines
/// do between them. Counted from 0, as job arrays are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

/// Not a shard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no shard; write i/n with i from 0 to n - 1, as in 0/4")]
pub struct NoShard(String);

impl Shard {
    /// All samples.
    pub const WHOLE: Shard = Shard { index: 0, count: 1 };

    /// The samples of `total` that are in this shard, ascending.
    pub fn indices(self, total: usize) -> impl Iterator<Item = usize> + Clone {
        (self.index..total).step_by(self.count)
    }

    /// `name` and `ending`, and between them, unless this is all there is, which shard it is.
    pub fn file_name(self, name: &str, ending: &str) -> String {
        match self {
            Shard::WHOLE => format!("{name}{ending}"),
            Shard { index, count } => format!("{name}.{index}-of-{count}{ending}"),
        }
    }
}

impl FromStr for Shard {
    type Err = NoShard;

    fn from_str(text: &str) -> Result<Self, NoShard> {
        let parts =
            text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, count)) if index < count => Ok(Shard { index, count }),
            _ => Err(NoShard(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}
