//! A comparison as people and as machines read it.

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::Serialize;

use super::{CompareArgs, Gathered, changes::Changes, chart};
use crate::slo::{
    comparison::{self, Aim, Arm, Comparison, Finding},
    doubt::{self, Doubt},
    repeats::Seen,
};

/// What `--output json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    service: Option<String>,
    stable: Side,
    canary: Side,
    aim: Aim,
    verdict: Verdict,
    /// What made it worse; empty unless it is.
    causes: Vec<Cause>,
    /// Why there is no verdict; empty unless it is `not_trustworthy`.
    doubts: Vec<Doubt>,
    comparison: Comparison,
    /// What the two were built from and run with; `None` when nobody was asked.
    changed: Option<Changes>,
}

#[derive(Debug, Serialize)]
struct Side {
    release: String,
    #[serde(flatten)]
    counted: Arm,
    exposed_share: Option<f64>,
    /// Exposures for each request, without what repeats.
    shown_items: Option<f64>,
    click_rate: Option<f64>,
    linked_share: Option<f64>,
    linked_ctr: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Healthy,
    Worse,
    Undecided,
    NotTrustworthy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Cause {
    LinksBroke,
    ClickedLess,
    ShowsLess,
}

impl Report {
    pub(super) fn new(args: &CompareArgs, gathered: &Gathered, changed: Option<Changes>) -> Self {
        let Gathered { stable, canary, conditions, origin: _ } = gathered;
        let aim = Aim { alpha: args.alpha, margin: args.margin };
        let comparison = comparison::compare(stable, canary, aim);
        let doubts = doubt::doubts((&args.stable, stable), (&args.canary, canary), conditions);
        let verdict = match comparison.verdict {
            _ if !doubts.is_empty() => Verdict::NotTrustworthy,
            comparison::Verdict::Healthy => Verdict::Healthy,
            comparison::Verdict::Worse => Verdict::Worse,
            comparison::Verdict::Undecided => Verdict::Undecided,
        };
        let is_worse =
            |finding: Finding| verdict == Verdict::Worse && finding.verdict == comparison::Verdict::Worse;
        let causes = [(Cause::LinksBroke, comparison.linking), (Cause::ClickedLess, comparison.clicking)];
        let shows_less = comparison.showing.map(|finding| (Cause::ShowsLess, finding));
        let causes = causes
            .into_iter()
            .chain(shows_less)
            .filter(|(_, finding)| is_worse(*finding))
            .map(|(cause, _)| cause);
        Self {
            service: args.service.clone(),
            stable: Side::new(&args.stable, stable),
            canary: Side::new(&args.canary, canary),
            aim,
            verdict,
            causes: causes.collect(),
            doubts,
            comparison,
            changed,
        }
    }

    /// Table, chart and verdict; `origin` is where the counts come from.
    pub(super) fn text(&self, origin: &str) -> String {
        let service = self.service.as_deref().unwrap_or("all services");
        let mut text = format!("{service}, {origin}\n\n{}\n", self.table());
        if let Some(split) = self.comparison.split {
            text.push_str("\nchange of linked CTR, in percentage points, with 95 % intervals\n");
            text.push_str(&chart::render(&[
                ("in all", split.total),
                ("  links broke", split.links_broke),
                ("  users clicked less", split.clicked_less),
            ]));
        }
        text.push_str(&format!("\n{}\n", self.conclusion()));
        text + &self.changed.as_ref().map_or_else(String::new, Changes::text)
    }

    fn table(&self) -> String {
        let percent =
            |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.3} %", share * 100.0));
        let mut table = Table::new();
        table.load_style(NOTHING);
        let mut row = |name: &str, of: &dyn Fn(&Side) -> String| {
            table.add_row([name.to_owned(), of(&self.stable), of(&self.canary)]);
        };
        row("release", &|side| side.release.clone());
        let repeated = |seen: Seen| percent(seen.repeated_share());
        row("requests", &|side| side.counted.requests.to_string());
        row("that something was shown for", &|side| percent(side.exposed_share));
        row("items shown for one", &|side| {
            side.shown_items.map_or("-".to_owned(), |items| format!("{items:.2}"))
        });
        row("repeated requests", &|side| repeated(side.counted.repeats.requests));
        row("repeated exposures", &|side| repeated(side.counted.repeats.exposures));
        row("exposures", &|side| side.counted.exposures.to_string());
        row("clicks", &|side| side.counted.clicks.to_string());
        row("linked clicks", &|side| side.counted.linked.to_string());
        row("click rate", &|side| percent(side.click_rate));
        row("linked share", &|side| percent(side.linked_share));
        row("linked CTR", &|side| percent(side.linked_ctr));
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.trim_fmt()
    }

    fn conclusion(&self) -> String {
        let Comparison { showing, clicking, linking, .. } = self.comparison;
        let clicking = format!("clicks per exposure changed by {}", bounds(clicking, "%"));
        let linking = format!("the linked share changed by {}", bounds(linking, "percentage points"));
        let showing = showing.map_or_else(
            || "of the requests of one release nothing is known".to_owned(),
            |showing| {
                format!(
                    "the share of requests that something was shown for changed by {}",
                    bounds(showing, "%")
                )
            },
        );
        let changes = format!("  {clicking}\n  {linking}\n  {showing}");
        let sure = format!("with {:.0} % certainty at every look", (1.0 - self.aim.alpha) * 100.0);
        match self.verdict {
            Verdict::NotTrustworthy => {
                let reasons: Vec<String> = self.doubts.iter().map(|doubt| format!("\n  {doubt}")).collect();
                format!("not trustworthy:{}", reasons.concat())
            }
            Verdict::Healthy => {
                format!("healthy: no loss of {} % or more, {sure}\n{changes}", self.aim.margin * 100.0)
            }
            Verdict::Worse => {
                let causes: Vec<&str> = self
                    .causes
                    .iter()
                    .map(|cause| match cause {
                        Cause::LinksBroke => "links broke",
                        Cause::ClickedLess => "users clicked less",
                        Cause::ShowsLess => "nothing was shown for more requests",
                    })
                    .collect();
                format!("worse: {}, {sure}\n{changes}", causes.join(", and "))
            }
            Verdict::Undecided => {
                format!("undecided: too little was counted so far\n{changes}")
            }
        }
    }
}

impl Side {
    fn new(release: &str, counted: &Arm) -> Self {
        Self {
            release: release.to_owned(),
            counted: *counted,
            exposed_share: counted.exposed_share(),
            shown_items: counted.repeats.shown(),
            click_rate: counted.click_rate(),
            linked_share: counted.linked_share(),
            linked_ctr: counted.linked_ctr(),
        }
    }
}

fn bounds(finding: Finding, unit: &str) -> String {
    let low = format!("{:+.2}", finding.change_low * 100.0);
    match finding.change_high {
        Some(high) => format!("{low} to {:+.2} {unit}", high * 100.0),
        None => format!("{low} {unit} or more"),
    }
}
