//! Words, numbers and names, drawn at random.

use super::task::Word;
use fastrand::Rng;
use std::collections::HashSet;

const ADJECTIVES: &str = "\
    able agile amber ample ancient arctic autumn azure bare bitter bland blunt bold brave brief bright \
    brisk broad bronze calm candid careful cedar cheap chilly civil clean clever close cold coral cosy \
    crimson crisp curious curly damp dark deep dense distant dizzy double dry dull dusty eager early \
    easy elder empty equal exact faint fair famous fancy fast festive fine firm flat fleet fond formal \
    frank free fresh frosty full gentle giant glad golden good grand grave great green grim gruff happy \
    hardy harsh hasty hazel heavy hidden hollow honest humble icy idle ivory jolly keen kind large \
    late lean level light lively local lofty lone long loud lower loyal lucky mellow merry mighty mild \
    minor misty modest mossy muddy narrow neat new nimble noble northern odd old olive open outer pale \
    patient plain polite proud pure quaint quick quiet rapid rare ready regal remote rich rigid ripe \
    rosy rough round royal rural rusty sable safe salty sandy scarce secret serene shady sharp shiny \
    short shy silent silver simple sleepy slender slim slow smooth sober soft solar solemn solid sour \
    southern spare stable stark steady steep stern stiff stout strange strict strong sturdy subtle \
    sudden sunny super sweet swift tall tame tart tender thick thin tidy tiny tough upper vast velvet \
    vivid warm weary western whole wide wild windy winter wise woolen yellow young";

const NOUNS: &str = "\
    acorn actor alley anchor angle ankle apple apron arch arrow attic badge bakery banjo barley barrel \
    basin basket beacon bean bear bench berry bird blanket blossom boat bonnet book boot bottle branch \
    bread breeze brick bridge broom brush bucket buckle butter button cabin cable camel camera candle \
    canoe canyon cape carpet cart castle cave cello chain chair chalk chapel cheese cherry chest \
    chimney cinder circle clay cliff clock cloud clover coat coffee collar comet compass copper cork \
    corner cotton cradle crane crate creek crown cup curtain cushion daisy dancer desk diary dish \
    dolphin donkey door dove drawer dream drum duck eagle easel elbow engine falcon farm feather fence \
    fern fiddle field finch flag flame flute forest fork fountain fox frame galaxy garden garlic gate \
    ginger glacier glass globe glove goose grape gravel guitar hammer harbor harp hat hawk heron hill \
    hinge honey hook horn horse hotel island ivy jacket jar jewel jungle kettle key kite kitten \
    ladder lagoon lake lamp lantern lark leaf lemon letter lily lion lizard lobster lock locket loom \
    magnet maple marble market mask meadow melon mill mirror mitten monk moon morning moth motor \
    mountain mule museum nest nickel noodle nutmeg oak oar ocean onion orchard orchid otter oven owl \
    oyster paddle palace palm panda paper parade parcel parrot pasture path peach pear pebble pencil \
    pepper piano picnic pillow pilot pine pirate planet plate plum pocket poet pond poplar poppy porch \
    potato prairie prism puppet quarry quill rabbit radio raft railway rain raven ribbon ridge river \
    road robin rocket roof rope rose rudder saddle sail salmon school scissors seal shell shelter ship \
    shoe shovel singer sketch sled snail snow spade sparrow spider spoon spring stable star station \
    statue stone storm stream street summit swan table tailor teapot temple thimble thread ticket tiger \
    timber toast tomato torch tower town trail train tree trumpet tulip tunnel turtle valley vase \
    violin wagon walnut water wave well whale wheat wheel whistle willow window wolf wood wreath";

/// Lists to draw from.
#[derive(Debug)]
pub(super) struct Words {
    adjectives: Vec<&'static str>,
    nouns: Vec<&'static str>,
}

impl Words {
    pub fn new() -> Self {
        let list = |words: &'static str| words.split_ascii_whitespace().collect();
        Words { adjectives: list(ADJECTIVES), nouns: list(NOUNS) }
    }

    /// `adj-noun`, with more adjectives in front after some attempts that were not new.
    fn key(&self, attempt: usize, random: &mut Rng) -> String {
        let mut key = String::new();
        for _ in 0..=attempt / PATIENCE {
            key += pick(&self.adjectives, random);
            key.push('-');
        }
        key + pick(&self.nouns, random)
    }

    /// A word, made of more words after some attempts that were not new.
    pub fn word(&self, attempt: usize, random: &mut Rng) -> String {
        let (adjectives, nouns) = (self.adjectives.len(), self.nouns.len());
        let mut word = String::new();
        for _ in 0..=attempt / PATIENCE {
            let index = random.usize(..adjectives + nouns);
            word += self.adjectives.get(index).unwrap_or_else(|| &self.nouns[index - adjectives]);
        }
        word
    }

    /// A key or value.
    pub fn draw(&self, kind: Word, attempt: usize, random: &mut Rng) -> String {
        match kind {
            Word::Words => self.key(attempt, random),
            Word::Number => random.u32(1_000_000..10_000_000).to_string(),
            Word::Uuid => uuid(random.u128(..)),
        }
    }
}

/// Attempts at a new word before it may be longer.
const PATIENCE: usize = 4;

fn pick<'w>(list: &[&'w str], random: &mut Rng) -> &'w str {
    list[random.usize(..list.len())]
}

/// Version 4, variant 1 (RFC 9562).
fn uuid(bits: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// `length` letters, the first of them `a` or `A`.
pub(super) fn letters(length: usize, first: u8, random: &mut Rng) -> String {
    (0..length).map(|_| char::from(first + random.u8(..26))).collect()
}

/// What was drawn already.
#[derive(Debug, Default)]
pub(super) struct Fresh(HashSet<String>);

impl Fresh {
    /// Draws until it is new. `draw` is given the number of attempts before, from which it must widen
    /// its choice sooner or later.
    pub fn draw(&mut self, mut draw: impl FnMut(usize) -> String) -> String {
        let mut attempt = 0;
        loop {
            let drawn = draw(attempt);
            if self.0.insert(drawn.clone()) {
                return drawn;
            }
            attempt += 1;
        }
    }
}

/// A stream of random numbers of its own for each `seed` and `path`, so that one sample does not depend
/// on another.
pub(super) fn stream(seed: u64, path: &[u64]) -> Rng {
    let seed = path.iter().fold(seed, |seed, part| {
        // The draw mixes, so that neighbours share nothing.
        Rng::with_seed(Rng::with_seed(seed).u64(..) ^ part).u64(..)
    });
    Rng::with_seed(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_no_word_twice() {
        let words = Words::new();
        let all: Vec<_> = words.adjectives.iter().chain(&words.nouns).collect();
        let distinct: HashSet<_> = all.iter().collect();
        // "stable" is both.
        assert_eq!(distinct.len() + 1, all.len());
        assert!(all.iter().all(|w| w.bytes().all(|b| b.is_ascii_lowercase())));
        assert!(words.adjectives.len() * words.nouns.len() > 50_000);
    }

    #[test]
    fn there_is_always_a_new_word() {
        let (words, mut random) = (Words::new(), Rng::with_seed(1));
        let mut fresh = Fresh::default();
        let keys: HashSet<String> =
            (0..200_000).map(|_| fresh.draw(|n| words.key(n, &mut random))).collect();
        assert_eq!(keys.len(), 200_000);
        let mut fresh = Fresh::default();
        for drawn in 0..5000 {
            let word = fresh.draw(|n| words.word(n, &mut random));
            assert!(drawn > 200 || word.len() <= 16, "{word}: the first are single words mostly");
        }
    }

    #[test]
    fn uuids_have_their_version_and_variant() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn streams_differ() {
        let first = |seed, path: &[u64]| stream(seed, path).u64(..);
        assert_eq!(first(1, &[2, 3]), first(1, &[2, 3]));
        let all: HashSet<u64> =
            (0..20).flat_map(|a| (0..20).map(move |b| first(a, &[b, 1]))).collect();
        assert_eq!(all.len(), 400);
        assert_ne!(first(1, &[2, 3]), first(1, &[3, 2]));
    }
}
