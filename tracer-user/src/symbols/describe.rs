//! `linktracer symbols`: what could be probed in a file, where, and why there.

use std::{
    io::{self, Write},
    path::Path,
};

use super::{
    SymbolError,
    go::{self, BuildInfo},
    image::Image,
    mapped,
    pattern::Pattern,
    search::{Found, Search},
    usdt::{self, Note},
};

/// Lines without a pattern, and with one.
const MAX_ROWS: usize = 40;
const MAX_ROWS_OF_PATTERN: usize = 2000;
/// Matches held at once. More are not counted.
const MAX_MATCHES: usize = 100_000;
/// A longer name pushes its row's other columns to the right.
const MAX_NAME_WIDTH: usize = 60;

/// Why there is no description.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// Of the file.
    #[error(transparent)]
    Symbols(#[from] SymbolError),
    /// Of where it was written to.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Writes what the file at `path` is and a table of the functions that `pattern` means: name,
/// address, place of the probe, instruction there, and the reason for the place.
///
/// Without a pattern the functions that a team may want are listed, a few of them: of Go the
/// exported ones outside the standard library, of others all; `*` lists everything. The USDT probes
/// follow, with their places and arguments as the file notes them; `provider:name` means those alone.
///
/// # Errors
/// When the file cannot be read as a program, when no function is called `pattern`, and when `out`
/// cannot be written to. A function without a place is a row that says why.
pub fn describe(path: &Path, pattern: Option<&str>, out: &mut dyn Write) -> Result<(), DescribeError> {
    describe_in(path, &mapped(path)?, pattern, out)
}

/// As [`describe`], of a file that is in memory already; `path` is for the heading and for messages.
///
/// # Errors
/// See [`describe`].
pub fn describe_in(
    path: &Path,
    bytes: &[u8],
    pattern: Option<&str>,
    out: &mut dyn Write,
) -> Result<(), DescribeError> {
    let image = Image::parse(bytes).map_err(|problem| SymbolError::not_elf(path, problem))?;
    let search = Search::new(path, &image);
    heading(path, &image, &search, out)?;
    let probes = usdt_rows(&image, pattern);
    let (rows, more) = match pattern {
        // No function's name has a colon on its own, and a probe's always has.
        Some(text) if !probes.is_empty() && text.contains(':') => (Vec::new(), 0),
        Some(text) => {
            let found = search.matching(Pattern::new(text), MAX_MATCHES)?;
            if found.is_empty() && probes.is_empty() {
                return Err(search.not_found(text).into());
            }
            split(found.into_iter(), MAX_ROWS_OF_PATTERN)
        }
        None => {
            let go = search.go_functions().filter(|found| !found.is_generated() && is_of_a_team(found.name));
            split(go.chain(search.other_functions()), MAX_ROWS)
        }
    };
    if !rows.is_empty() || probes.is_empty() {
        table(&search, &rows, out)?;
    }
    if more > 0 {
        writeln!(out, "... and {more} more; name the one you mean, or part of it with `*`")?;
    }
    let limit = if pattern.is_some() { MAX_ROWS_OF_PATTERN } else { MAX_ROWS };
    usdt_table(&probes, limit, out)?;
    Ok(())
}

/// The USDT probes that are meant, by name.
fn usdt_rows<'a>(image: &'a Image<'a>, pattern: Option<&str>) -> Vec<Note<'a>> {
    let pattern = pattern.map(Pattern::new);
    let is_meant = |note: &Note<'_>| pattern.is_none_or(|pattern| pattern.is_spelt(&note.probe()));
    let mut probes: Vec<Note<'a>> = usdt::notes(image).filter(is_meant).collect();
    probes.sort_by(|left, right| {
        (left.provider, left.name, left.address).cmp(&(right.provider, right.name, right.address))
    });
    probes
}

fn usdt_table(probes: &[Note<'_>], limit: usize, out: &mut dyn Write) -> io::Result<()> {
    if probes.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = probes.iter().take(limit).map(Note::probe).collect();
    let width = names.iter().map(|name| name.len().min(MAX_NAME_WIDTH)).max().unwrap_or(0).max(10);
    writeln!(out, "\n{:width$}  {:>10}  {:>10}  arguments", "USDT probe", "probe at", "semaphore")?;
    for (note, name) in probes.iter().zip(&names) {
        let semaphore = match note.semaphore {
            0 => "none".to_owned(),
            address => format!("{address:#x}"),
        };
        writeln!(out, "{name:width$}  {:>#10x}  {semaphore:>10}  {}", note.address, note.arguments)?;
    }
    if probes.len() > limit {
        writeln!(out, "... and {} more places; name the probe you mean", probes.len() - limit)?;
    }
    Ok(())
}

fn split<'a>(mut found: impl Iterator<Item = Found<'a>>, limit: usize) -> (Vec<Found<'a>>, usize) {
    let rows = found.by_ref().take(limit).collect();
    (rows, found.count())
}

fn heading(path: &Path, image: &Image<'_>, search: &Search<'_>, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{}: ", path.display())?;
    if let Some(info) = go::build_info::read(image) {
        writeln!(out, "{}", built(&info))?;
    } else {
        writeln!(out, "no Go build information")?;
    }
    match search.go() {
        Ok(Some(program)) => {
            let (start, end) = program.text();
            writeln!(out, "{} Go functions at {start:#x}..{end:#x}", program.function_count())
        }
        Ok(None) => Ok(()),
        Err(refusal) => writeln!(out, "its Go functions cannot be probed: {refusal}"),
    }
}

fn built(info: &BuildInfo) -> String {
    let mut text = info.go_version.clone();
    let main = info.main.as_ref().map(|module| format!(", module {} {}", module.path, module.version));
    text.extend(main);
    text.extend(info.revision().map(|revision| format!(", commit {revision}")));
    text
}

/// Exported, of a package whose import path starts with a domain name, or of `main`.
pub(super) fn is_of_a_team(name: &str) -> bool {
    let types = name.find('[').zip(name.rfind(']'));
    let own = types.map(|(start, end)| [&name[..start], name.get(end + 1..).unwrap_or_default()].concat());
    let name = own.as_deref().unwrap_or(name);
    let (path, last) = name.rsplit_once('/').unwrap_or(("", name));
    let outside = path.split('/').next().is_some_and(|first| first.contains('.'));
    let exported =
        last.rsplit(['.', ')']).next().is_some_and(|own| own.starts_with(|c: char| c.is_ascii_uppercase()));
    (outside && exported) || (path.is_empty() && last.starts_with("main."))
}

fn table(search: &Search<'_>, rows: &[Found<'_>], out: &mut dyn Write) -> io::Result<()> {
    let names: Vec<&str> = rows.iter().map(|found| found.name).collect();
    let inlined = search.inlined(&names).unwrap_or_default();
    let width = names.iter().map(|name| name.len().min(MAX_NAME_WIDTH)).max().unwrap_or(0).max(8);
    writeln!(
        out,
        "\n{:width$}  {:>10}  {:>10}  {:20}  why",
        "function", "address", "probe at", "instruction"
    )?;
    for (index, found) in rows.iter().enumerate() {
        write!(out, "{:width$}  {:>#10x}  ", found.name, found.address)?;
        match search.site(found) {
            Ok(site) => {
                let instruction = search.instruction(site.address);
                write!(out, "{:>#10x}  {instruction:20}  {}", site.address, site.reason)?;
            }
            Err(refusal) => write!(out, "{:>10}  {:20}  {refusal}", "none", "")?,
        }
        match inlined.get(index) {
            Some(inlined) if inlined.count > 0 => {
                let (count, into) = (inlined.count, inlined.into.join(", "));
                writeln!(out, "; calls in {count} functions are not seen, they hold a copy of it ({into})")?;
            }
            _ => writeln!(out)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_of_a_team;

    #[test]
    fn exported_functions_outside_the_standard_library_are_a_teams() {
        for name in [
            "main.run",
            "example.com/a/sdk.Track",
            "github.com/a/b.(*Client).Track",
            "a.com/b.(*T[x/y.z]).Get",
        ] {
            assert!(is_of_a_team(name), "{name}");
        }
        for name in [
            "fmt.Println",
            "net/http.Get",
            "example.com/a/sdk.track",
            "example.com/a/sdk.Track.func1",
            "slices.Sort[a.b/c.D]",
        ] {
            assert!(!is_of_a_team(name), "{name}");
        }
    }
}
