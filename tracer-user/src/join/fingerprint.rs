//! Ids as fingerprints: what the join keeps in place of strings.
//!
//! The hash is SipHash-1-3 with 128 bits of output under secret keys. SipHash is a pseudorandom
//! function: who does not know the key can do no better at making two ids collide than by chance,
//! however he chooses them. How small that chance is stands in docs/semantics.md.

use std::hash::{BuildHasher, Hasher, RandomState};

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::event::{ItemPrint, RequestPrint, SourcePrint};

/// Turns ids into fingerprints, the same ones for as long as its keys are kept. Copies agree, so
/// that several threads can share the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprinter {
    request_key: [u64; 2],
    item_key: [u64; 2],
    source_key: [u64; 2],
}

impl Fingerprinter {
    /// One with keys of its own, from the randomness of the operating system.
    pub fn random() -> Self {
        let seed = RandomState::new();
        let key = |number: u64| [seed.hash_one(2 * number), seed.hash_one(2 * number + 1)];
        Self { request_key: key(0), item_key: key(1), source_key: key(2) }
    }

    /// The fingerprint of a request id; of an empty one, [`RequestPrint::MISSING`].
    pub fn request(&self, id: &str) -> RequestPrint {
        if id.is_empty() {
            return RequestPrint::MISSING;
        }
        let [high, low] = hash(self.request_key, id);
        // All zero means that there is none.
        RequestPrint([high, low.max(u64::from(high == 0))])
    }

    /// The fingerprint of an item id; of an empty one, [`ItemPrint::MISSING`].
    pub fn item(&self, id: &str) -> ItemPrint {
        if id.is_empty() {
            return ItemPrint::MISSING;
        }
        ItemPrint((hash(self.item_key, id)[0] & ItemPrint::MASK).max(1))
    }

    /// The fingerprint of the name of a source.
    pub fn source(&self, name: &str) -> SourcePrint {
        SourcePrint(hash(self.source_key, name)[0])
    }
}

fn hash([key_0, key_1]: [u64; 2], text: &str) -> [u64; 2] {
    let mut hasher = SipHasher13::new_with_keys(key_0, key_1);
    hasher.write(text.as_bytes());
    let hash = hasher.finish128();
    [hash.h1, hash.h2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_fingerprint_for_each_key_and_purpose() {
        let (one, other) = (Fingerprinter::random(), Fingerprinter::random());
        assert_eq!(one.request("r"), one.clone().request("r"));
        assert_ne!(one.request("r"), one.request("s"));
        assert_ne!(one.request("r"), other.request("r"));
        assert_ne!(one.request("r").0[0], one.item("r").0);
        assert_ne!(one.item("r").0, one.source("r").0);
    }

    #[test]
    fn an_empty_id_is_missing_and_no_other_is() {
        let prints = Fingerprinter::random();
        assert!(prints.request("").is_missing() && prints.item("").is_missing());
        assert!(!prints.request("\0").is_missing() && !prints.item("\0").is_missing());
    }
}
