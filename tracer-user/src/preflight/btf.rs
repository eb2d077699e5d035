//! Where the members of kernel structures stand, from the kernel's type information (BTF).
//!
//! Reads the format of the kernel's documentation, `Documentation/bpf/btf.rst`: a header, a table of
//! types, a table of strings. Only what finding a member needs is understood. The bytes are not
//! trusted: every access is checked.

use std::collections::HashMap;

/// Why a structure's layout is not known.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// The bytes are no BTF this code understands.
    #[error("not type information that can be read: {0}")]
    Malformed(&'static str),
    /// There is no such structure.
    #[error("the kernel has no structure `{0}`")]
    NoStructure(String),
    /// The structure has no such member.
    #[error("the structure `{structure}` has no member `{member}`")]
    NoMember {
        /// Of which structure.
        structure: String,
        /// Which member.
        member: String,
    },
}

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// Anonymous structures and unions within each other; the kernel's deepest has four levels.
const MAX_DEPTH: u32 = 16;

/// The kernel's structures.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type starts within `types`, by its id less one.
    starts: Vec<usize>,
    structures: HashMap<&'a [u8], u32>,
}

impl<'a> Btf<'a> {
    /// Reads the tables of `bytes`, in the byte order of this machine.
    ///
    /// # Errors
    /// [`BtfError::Malformed`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let malformed = BtfError::Malformed;
        if u16_at(bytes, 0) != Some(MAGIC) {
            return Err(malformed("the magic number is missing"));
        }
        let table = |offset_at: usize| -> Option<&'a [u8]> {
            let header_len = u32_at(bytes, 4)?;
            let start = header_len.checked_add(u32_at(bytes, offset_at)?)? as usize;
            let len = u32_at(bytes, offset_at + 4)? as usize;
            bytes.get(start..start.checked_add(len)?)
        };
        let types = table(8).ok_or(malformed("the table of types is cut short"))?;
        let strings = table(16).ok_or(malformed("the table of strings is cut short"))?;
        let mut btf = Self { types, strings, starts: Vec::new(), structures: HashMap::new() };
        let mut at = 0;
        while at < types.len() {
            let (info, len) = btf.entry(at).ok_or(malformed("a type is cut short or unknown"))?;
            btf.starts.push(at);
            let id = u32::try_from(btf.starts.len()).map_err(|_| malformed("too many types"))?;
            if kind(info) == KIND_STRUCT
                && let Some(name) = u32_at(types, at).and_then(|offset| btf.string(offset))
                && !name.is_empty()
            {
                btf.structures.entry(name).or_insert(id);
            }
            at += len;
        }
        Ok(btf)
    }

    /// Where `member` of `structure` starts, in bytes. Members of anonymous structures and unions
    /// within it count as its own.
    ///
    /// # Errors
    /// Either is not there, or the member is a bit field.
    pub fn offset(&self, structure: &str, member: &str) -> Result<u32, BtfError> {
        let id = self.structures.get(structure.as_bytes());
        let id = *id.ok_or_else(|| BtfError::NoStructure(structure.to_owned()))?;
        let no_member = || BtfError::NoMember { structure: structure.to_owned(), member: member.to_owned() };
        let bits = self.member_bits(id, member.as_bytes(), 0).ok_or_else(no_member)?;
        if bits.is_multiple_of(8) { Ok(bits / 8) } else { Err(no_member()) }
    }

    fn member_bits(&self, id: u32, wanted: &[u8], depth: u32) -> Option<u32> {
        let at = *self.starts.get((id as usize).checked_sub(1)?)?;
        let info = u32_at(self.types, at + 4)?;
        if !matches!(kind(info), KIND_STRUCT | KIND_UNION) || depth > MAX_DEPTH {
            return None;
        }
        for index in 0..vlen(info) {
            let member = at + 12 + index as usize * 12;
            let name = self.string(u32_at(self.types, member)?)?;
            let bits = u32_at(self.types, member + 8)?;
            // With the kind flag set the upper byte is the width of a bit field.
            let bits = if info >> 31 == 1 { bits & 0x00ff_ffff } else { bits };
            if name == wanted {
                return Some(bits);
            }
            if name.is_empty()
                && let Some(inner) = self.member_bits(u32_at(self.types, member + 4)?, wanted, depth + 1)
            {
                return bits.checked_add(inner);
            }
        }
        None
    }

    /// The info word and the length in bytes of the entry at `at`.
    fn entry(&self, at: usize) -> Option<(u32, usize)> {
        let info = u32_at(self.types, at + 4)?;
        let count = vlen(info) as usize;
        let extra = match kind(info) {
            // Pointers, typedefs, qualifiers, forwards, functions, floats and type tags.
            2 | 7 | 8 | 9 | 10 | 11 | 12 | 16 | 18 => 0,
            // Integers, variables and declaration tags.
            1 | 14 | 17 => 4,
            // Arrays.
            3 => 12,
            KIND_STRUCT | KIND_UNION | 15 | 19 => count * 12,
            // Enumerations and prototypes.
            6 | 13 => count * 8,
            _ => return None,
        };
        let len = 12 + extra;
        (at.checked_add(len)? <= self.types.len()).then_some((info, len))
    }

    fn string(&self, offset: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(offset as usize..)?;
        Some(&rest[..rest.iter().position(|byte| *byte == 0)?])
    }
}

const fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

const fn vlen(info: u32) -> u32 {
    info & 0xffff
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Btf, BtfError};

    /// `struct sock { int family; union { struct { int port; }; long both; }; }` and `int`.
    fn sample() -> Vec<u8> {
        let strings = b"\0sock\0family\0port\0both\0int\0";
        let name = |text: &str| {
            let at = strings.windows(text.len() + 2).position(|window| {
                window[0] == 0 && &window[1..=text.len()] == text.as_bytes() && window[text.len() + 1] == 0
            });
            u32::try_from(at.expect("in the table") + 1).expect("small")
        };
        let mut types: Vec<u32> = Vec::new();
        types.extend([name("int"), 1 << 24, 4, 32]); // 1: int
        types.extend([0, 4 << 24 | 1, 4, name("port"), 1, 0]); // 2: anonymous struct
        types.extend([0, 5 << 24 | 2, 8, 0, 2, 0, name("both"), 1, 0]); // 3: anonymous union
        types.extend([name("sock"), 4 << 24 | 2, 12, name("family"), 1, 0, 0, 3, 32]); // 4: sock
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let types_len = u32::try_from(types.len()).expect("small");
        let strings_len = u32::try_from(strings.len()).expect("small");
        let mut bytes = super::MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend([24, 0, types_len, types_len, strings_len].into_iter().flat_map(u32::to_ne_bytes));
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_are_found_within_anonymous_structures_and_unions() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).expect("well formed");
        assert_eq!(btf.offset("sock", "family"), Ok(0));
        assert_eq!(btf.offset("sock", "port"), Ok(4));
        assert_eq!(btf.offset("sock", "both"), Ok(4));
        assert!(matches!(btf.offset("sock", "none"), Err(BtfError::NoMember { .. })));
        assert!(matches!(btf.offset("none", "family"), Err(BtfError::NoStructure(_))));
    }

    #[test]
    fn bytes_that_are_cut_short_are_refused_at_every_length() {
        let bytes = sample();
        for len in 0..bytes.len() - 1 {
            assert!(Btf::parse(&bytes[..len]).is_err(), "{len} bytes were accepted");
        }
    }
}
