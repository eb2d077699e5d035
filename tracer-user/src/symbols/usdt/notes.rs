//! The notes of the section `.note.stapsdt`.

use super::super::image::{Image, u32_at, u64_at};

/// Notes read of one file; the largest runtimes have hundreds.
const MAX_NOTES: usize = 16_384;
/// Longest provider, name or list of arguments in bytes.
const MAX_TEXT_LEN: usize = 1024;

/// One place.
#[derive(Debug, Clone, Copy)]
pub(in crate::symbols) struct Note<'a> {
    pub(in crate::symbols) provider: &'a str,
    pub(in crate::symbols) name: &'a str,
    pub(in crate::symbols) address: u64,
    /// 0 where there is none.
    pub(in crate::symbols) semaphore: u64,
    pub(in crate::symbols) arguments: &'a str,
}

impl Note<'_> {
    /// `provider:name`.
    pub(in crate::symbols) fn probe(&self) -> String {
        format!("{}:{}", self.provider, self.name)
    }
}

/// Every note that can be read, in the order of the file.
pub(super) fn all<'a>(image: &'a Image<'a>) -> impl Iterator<Item = Note<'a>> {
    let bytes = image.section_bytes(b".note.stapsdt").unwrap_or_default();
    // Tools that move a program after it was linked (prelink) leave the notes as they are. How far it was
    // moved shows in a section that stands nowhere but at a place that the notes name.
    let base = image.section(b".stapsdt.base");
    read(bytes, base).take(MAX_NOTES)
}

fn read(mut rest: &[u8], base: Option<u64>) -> impl Iterator<Item = Note<'_>> {
    const HEADER_LEN: usize = 12;
    std::iter::from_fn(move || {
        loop {
            let name_len = u32_at(rest, 0)? as usize;
            let content_len = u32_at(rest, 4)? as usize;
            let kind = u32_at(rest, 8)?;
            let content_at = HEADER_LEN.checked_add(name_len.checked_next_multiple_of(4)?)?;
            let name = rest.get(HEADER_LEN..HEADER_LEN.checked_add(name_len)?)?;
            let content = rest.get(content_at..content_at.checked_add(content_len)?)?;
            let next = content_at.checked_add(content_len.checked_next_multiple_of(4)?)?;
            rest = rest.get(next..).unwrap_or_default();
            if name == b"stapsdt\0"
                && kind == 3
                && let Some(note) = note(content, base)
            {
                return Some(note);
            }
        }
    })
}

fn note(content: &[u8], base: Option<u64>) -> Option<Note<'_>> {
    let (address, linked_base, semaphore) = (u64_at(content, 0)?, u64_at(content, 8)?, u64_at(content, 16)?);
    let moved = base.map_or(0, |base| base.wrapping_sub(linked_base));
    let mut texts = content.get(24..)?.split(|byte| *byte == 0);
    let mut text = || str::from_utf8(texts.next()?).ok().filter(|text| is_plain(text));
    Some(Note {
        provider: text()?,
        name: text()?,
        address: address.wrapping_add(moved),
        semaphore: if semaphore == 0 { 0 } else { semaphore.wrapping_add(moved) },
        arguments: text()?,
    })
}

/// The texts go into messages and onto terminals.
fn is_plain(text: &str) -> bool {
    text.len() <= MAX_TEXT_LEN && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::read;

    fn bytes(owner: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [owner.len(), content.len(), kind as usize] {
            note.extend(u32::try_from(number).expect("is short").to_le_bytes());
        }
        for part in [owner, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    fn content(address: u64, base: u64, semaphore: u64, texts: &str) -> Vec<u8> {
        let numbers = [address, base, semaphore].into_iter().flat_map(u64::to_le_bytes);
        numbers.chain(texts.bytes()).collect()
    }

    #[test]
    fn what_is_in_a_note_is_read_and_moved_with_the_program() {
        let mut section = bytes(b"other\0", 3, &content(1, 2, 3, "a\0b\0c\0"));
        section.extend(bytes(b"stapsdt\0", 3, &content(0x100, 0x1000, 0x200, "shop\0click\08@%rdi\0")));
        section.extend(bytes(b"stapsdt\0", 3, &content(0x180, 0x1000, 0, "shop\0none\0\0")));
        let notes: Vec<_> = read(&section, Some(0x1800)).collect();
        let [click, none] = notes.as_slice() else { panic!("{notes:?}") };
        assert_eq!((click.probe().as_str(), click.arguments), ("shop:click", "8@%rdi"));
        assert_eq!((click.address, click.semaphore), (0x900, 0xa00));
        assert_eq!((none.address, none.semaphore, none.arguments), (0x980, 0, ""));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(
            section in prop::collection::vec(any::<u8>(), 0..400),
            damage in prop::collection::vec((0_usize..120, any::<u8>()), 0..6),
        ) {
            let _ = read(&section, Some(7)).count();
            let mut real = bytes(b"stapsdt\0", 3, &content(1, 2, 3, "shop\0click\08@%rdi\0"));
            for (at, value) in damage {
                if let Some(byte) = real.get_mut(at) {
                    *byte = value;
                }
            }
            prop_assert!(read(&real, None).count() <= 1);
        }
    }
}
