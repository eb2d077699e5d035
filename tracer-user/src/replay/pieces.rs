//! Cuts bytes into pieces of whole lines, so that several threads can read lines at once.
//!
//! Memory is bounded whatever comes: a line beyond the bound is dropped while it is read.

use std::io::{self, Read};

use memchr::{memchr, memrchr};

use super::line::MAX_LINE_BYTES;

/// What is cut at one time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Whole lines. Only the last line of the input may be without its end.
    Lines(Vec<u8>),
    /// One line that is longer than [`MAX_LINE_BYTES`] and was not kept.
    TooLong,
}

/// Where reading ended and why.
#[derive(Debug)]
pub(super) struct Cut {
    /// Why no more can be read.
    pub(super) error: io::Error,
    /// Bytes of the whole lines that could be read.
    pub(super) byte: u64,
    /// Bytes of the last line that came before that. They are not in any piece: it is not known how
    /// the line goes on.
    pub(super) lost_bytes: usize,
}

/// Reads pieces of about `piece_bytes` bytes.
pub(super) struct Pieces<R> {
    input: R,
    piece_bytes: usize,
    read_bytes: u64,
    /// The beginning of a line that was not given out yet.
    rest: Vec<u8>,
    /// Within a line that is too long.
    is_skipping: bool,
    is_over: bool,
    cut: Option<Cut>,
}

impl<R: Read> Pieces<R> {
    pub(super) fn new(input: R, piece_bytes: usize) -> Self {
        Self {
            input,
            piece_bytes,
            read_bytes: 0,
            rest: Vec::new(),
            is_skipping: false,
            is_over: false,
            cut: None,
        }
    }

    /// The next piece; `None` at the end. What was read before an error is given out first.
    pub(super) fn next_piece(&mut self) -> Result<Option<Piece>, Cut> {
        if let Some(cut) = self.cut.take() {
            return Err(cut);
        }
        if self.is_over {
            return Ok(None);
        }
        let mut buffer = std::mem::take(&mut self.rest);
        loop {
            let wanted = self.piece_bytes.checked_sub(buffer.len()).filter(|room| *room > 0);
            let wanted = wanted.unwrap_or(self.piece_bytes);
            let known = buffer.len();
            buffer.reserve(wanted);
            let read = self.input.by_ref().take(wanted as u64).read_to_end(&mut buffer);
            self.read_bytes += (buffer.len() - known) as u64;
            if self.is_skipping {
                let end = memchr(b'\n', &buffer);
                self.is_skipping = end.is_none();
                buffer.drain(..end.map_or(buffer.len(), |end| end + 1));
            }
            match read {
                Err(error) => return self.cut_at(buffer, error),
                Ok(length) if length < wanted => {
                    self.is_over = true;
                    return Ok((!buffer.is_empty()).then_some(Piece::Lines(buffer)));
                }
                Ok(_) => {}
            }
            if let Some(end) = memrchr(b'\n', &buffer) {
                self.rest = buffer.split_off(end + 1);
                return Ok(Some(Piece::Lines(buffer)));
            }
            if buffer.len() > MAX_LINE_BYTES {
                self.is_skipping = true;
                return Ok(Some(Piece::TooLong));
            }
        }
    }

    /// Nothing more can be read: gives out the whole lines there are.
    fn cut_at(&mut self, mut buffer: Vec<u8>, error: io::Error) -> Result<Option<Piece>, Cut> {
        let whole = memrchr(b'\n', &buffer).map_or(0, |end| end + 1);
        let lost_bytes = buffer.len() - whole;
        let cut = Cut { error, byte: self.read_bytes - lost_bytes as u64, lost_bytes };
        self.is_over = true;
        buffer.truncate(whole);
        if buffer.is_empty() {
            return Err(cut);
        }
        self.cut = Some(cut);
        Ok(Some(Piece::Lines(buffer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out at most three bytes at a time, and an error in place of the end.
    struct Slow<'a>(&'a [u8], Option<io::ErrorKind>);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.len().min(buffer.len()).min(3);
            match self.1 {
                Some(kind) if length == 0 && !buffer.is_empty() => return Err(kind.into()),
                _ => buffer[..length].copy_from_slice(&self.0[..length]),
            }
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    #[track_caller]
    fn check(input: &str, piece_bytes: usize, expected: &[&str]) {
        let mut pieces = Pieces::new(Slow(input.as_bytes(), None), piece_bytes);
        let mut found = Vec::new();
        while let Some(piece) = pieces.next_piece().expect("nothing fails") {
            match piece {
                Piece::Lines(lines) => found.push(String::from_utf8(lines).expect("ASCII")),
                Piece::TooLong => found.push("too long".to_owned()),
            }
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn pieces_end_with_lines() {
        check("", 4, &[]);
        check("\n", 4, &["\n"]);
        check("ab\ncd\n", 4, &["ab\n", "cd\n"]);
        check("ab\ncd", 4, &["ab\n", "cd"]);
        check("a long line\nb\n", 4, &["a long line\n", "b\n"]);
        check("a\nb\nc\nd\n", 4, &["a\nb\n", "c\nd\n"]);
    }

    #[test]
    fn a_line_beyond_the_bound_is_dropped_and_what_follows_is_kept() {
        let long = "x".repeat(3 * MAX_LINE_BYTES);
        check(&format!("a\n{long}\nb\n"), 1000, &["a\n", "too long", "b\n"]);
        check(&format!("a\n{long}"), 1000, &["a\n", "too long"]);
        check(&format!("{long}\n{long}\n\n"), 1000, &["too long", "too long", "\n"]);
    }

    #[test]
    fn whole_lines_before_an_error_are_given_out_and_the_error_after_them() {
        let mut pieces = Pieces::new(Slow(b"ab\ncd\nef", Some(io::ErrorKind::UnexpectedEof)), 100);
        let piece = pieces.next_piece().expect("lines come first");
        assert_eq!(piece, Some(Piece::Lines(b"ab\ncd\n".to_vec())));
        let cut = pieces.next_piece().expect_err("then the error");
        assert_eq!((cut.error.kind(), cut.byte, cut.lost_bytes), (io::ErrorKind::UnexpectedEof, 6, 2));
        assert_eq!(pieces.next_piece().expect("and no more"), None);
    }
}
