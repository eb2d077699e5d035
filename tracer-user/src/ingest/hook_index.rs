//! How a hook is written down: by its number.

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
use tracer_common::counters::Hook;

pub(super) fn serialize<S: Serializer>(hook: &Hook, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(*hook as u32)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hook, D::Error> {
    let index = u32::deserialize(deserializer)?;
    Hook::from_index(index).ok_or_else(|| D::Error::custom(format!("there is no hook {index}")))
}
