//! Tables that a command writes into a document, between two lines that stay.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::machine::Machine;

/// Where a table stands.
pub(crate) struct Place {
    /// The document, from the repository's top.
    pub(crate) document: &'static str,
    /// The line before the table.
    pub(crate) begin: &'static str,
}

/// The line after a table.
const END: &str = "<!-- end -->";

impl Place {
    /// The table as it stands there.
    pub(crate) fn read(&self, machine: &Machine) -> Result<String> {
        let text = self.text(machine)?;
        Ok(self.parts(&text)?[1].trim().to_owned())
    }

    /// Puts another table there.
    pub(crate) fn write(&self, machine: &Machine, table: &str) -> Result<()> {
        let text = self.replaced(&self.text(machine)?, table)?;
        fs::write(machine.workspace.join(self.document), text)
            .with_context(|| format!("writing {}", self.document))
    }

    fn text(&self, machine: &Machine) -> Result<String> {
        fs::read_to_string(machine.workspace.join(self.document))
            .with_context(|| format!("reading {}", self.document))
    }

    fn replaced(&self, text: &str, table: &str) -> Result<String> {
        let [before, _, after] = self.parts(text)?;
        Ok(format!("{before}{}\n\n{}\n\n{END}{after}", self.begin, table.trim()))
    }

    /// What stands before, between and after the two lines.
    fn parts<'a>(&self, text: &'a str) -> Result<[&'a str; 3]> {
        let Place { document, begin } = self;
        let Some((before, rest)) = text.split_once(begin) else { bail!("{document} has no line {begin}") };
        let Some((table, after)) = rest.split_once(END) else {
            bail!("{document} has no line {END} after {begin}")
        };
        Ok([before, table, after])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_goes_between_its_lines_and_can_be_written_again() {
        let place = Place { document: "x.md", begin: "<!-- begin -->" };
        let once =
            place.replaced("a\n<!-- begin -->\nold\n<!-- end -->\nb\n", "| new |\n").expect("has both lines");
        assert_eq!(once, "a\n<!-- begin -->\n\n| new |\n\n<!-- end -->\nb\n");
        assert_eq!(place.replaced(&once, "| new |\n").expect("has both lines"), once);
        assert!(place.replaced("nothing", "x").is_err());
    }
}
