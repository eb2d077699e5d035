//! `linktracer lint`: what is wrong with an AnalysisTemplate of Argo Rollouts, before a release depends on it.
//!
//! Only metrics of the Prometheus provider are looked at. Nothing is asked of a cluster or of a server.

pub mod condition;
mod query;
mod rules;
pub mod template;

#[cfg(test)]
mod tests;

use std::{fs, io::Write, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;

pub use rules::{Finding, findings};

use crate::replay::OutputFormat;

/// Say what is wrong with AnalysisTemplates, and why.
#[derive(Debug, Clone, Args)]
pub struct LintArgs {
    /// YAML files with AnalysisTemplates.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub output: OutputFormat,
}

#[derive(Serialize)]
struct Located<'a> {
    file: String,
    template: &'a str,
    #[serde(flatten)]
    finding: Finding,
}

/// Prints every finding of every file; true when there is none. Fails when a file cannot be read, is not YAML, or has
/// no template.
pub fn run(args: &LintArgs, mut output: impl Write) -> Result<bool> {
    let mut all = Vec::new();
    for path in &args.files {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).with_context(|| format!("read {file}"))?;
        let templates = template::read(&text).with_context(|| file.clone())?;
        for template in &templates {
            for finding in findings(template) {
                all.push((file.clone(), template.name.clone(), finding));
            }
        }
    }
    match args.output {
        OutputFormat::Text => text(&all, args.files.len(), &mut output),
        OutputFormat::Json => {
            let located: Vec<Located<'_>> = all
                .iter()
                .map(|(file, template, finding)| Located {
                    file: file.clone(),
                    template,
                    finding: finding.clone(),
                })
                .collect();
            let list = serde_json::to_string(&located).context("serialise the findings")?;
            writeln!(output, "{list}")
        }
    }
    .and_then(|()| output.flush())
    .context("write the findings")?;
    Ok(all.is_empty())
}

fn text(all: &[(String, String, Finding)], files: usize, output: &mut impl Write) -> std::io::Result<()> {
    for (file, _, Finding { line, metric, rule, message, why }) in all {
        writeln!(output, "{file}:{line}: {metric}: {message} [{rule}]\n    {why}")?;
    }
    match all.len() {
        0 => writeln!(output, "nothing is wrong ({files} files)"),
        1 => writeln!(output, "1 finding"),
        count => writeln!(output, "{count} findings"),
    }
}
