//! The page as HTML. Every value goes in escaped: releases and groups come from processes that may lie.

use std::time::{Duration, SystemTime};

use maud::{DOCTYPE, Markup, html};

use super::{
    chart::{Row, bar, columns},
    notes::Note,
    view::{BrokenLink, EdgeHistory, Funnel, Recorded, Release, Service, View, grouped},
};
use crate::{build, domain::Edge, slo::Ids};

/// Seconds after which a browser asks again.
const REFRESH_SECONDS: u32 = 30;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn markup(view: &View) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @if view.recorded.is_none() { meta http-equiv="refresh" content=(REFRESH_SECONDS); }
                title { "linktracer on " (view.source) }
                style { (maud::PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "linktracer" }
                    p { (view.source) ", " (span(view)) ". Version " (build::VERSION) "." }
                }
                main {
                    (notes(&view.notes))
                    @if view.services.is_empty() { p { "Nothing was judged yet." } }
                    @for service in &view.services { (self::service(service, view)) }
                }
                footer {
                    p {
                        a href="/metrics" { "metrics" }
                        @if view.recorded.is_none() {
                            " · " a href="/releases" { "releases" } " · " a href="/readyz" { "probes" } " · "
                            a href="/healthz" { "health" }
                        }
                    }
                }
            }
        }
    }
}

fn span(view: &View) -> String {
    if let Some(Recorded { from_ns, to_ns }) = view.recorded {
        let [from, to] = [from_ns, to_ns].map(|ns| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(ns);
            humantime::format_rfc3339_seconds(time)
        });
        return format!("recorded from {from} to {to}");
    }
    match view.minutes {
        1 => "since the daemon's start, less than a minute ago".to_owned(),
        minutes => format!("the last {} minutes", minutes - 1),
    }
}

fn notes(notes: &[Note]) -> Markup {
    let trusted = notes.iter().all(|note| !note.doubt);
    html! {
        section id="trust" class=(if trusted { "trusted" } else { "doubted" }) {
            h2 { @if trusted { "These numbers can be relied on" } @else { "Read these numbers with care" } }
            ul {
                @for note in notes { li class=(if note.doubt { "doubt" } else { "fine" }) { (note.text) } }
            }
        }
    }
}

fn service(service: &Service, view: &View) -> Markup {
    html! {
        section class="service" {
            h2 { (service.name) }
            (funnel(&service.funnel))
            h3 { "Broken links" }
            div class="edges" {
                @for edge in &service.edges { (self::edge(edge, view)) }
            }
            h3 { "Releases" }
            (releases(&service.releases))
            (examples(&service.examples, view.recorded.is_some()))
        }
    }
}

fn funnel(funnel: &Funnel) -> Markup {
    let most = funnel.requests.max(funnel.exposures).max(funnel.clicks);
    let rows = [
        ("requests", funnel.requests),
        ("requests exposed", funnel.exposed),
        ("exposures", funnel.exposures),
        ("clicks", funnel.clicks),
        ("clicks linked to their exposure", funnel.linked_clicks),
        ("complete triples", funnel.complete),
    ];
    html! {
        table class="funnel" {
            caption { "From request to click" }
            @for (name, count) in rows {
                tr { th scope="row" { (name) } td class="number" { (grouped(count)) } td { (bar(count, most)) } }
            }
            tr { th scope="row" { "CTR" } td class="number" { (percent(funnel.click_through_rate())) } td {} }
            tr {
                th scope="row" { "linked CTR" }
                td class="number" { (percent(funnel.linked_click_through_rate())) }
                td {}
            }
        }
    }
}

fn edge(edge: &EdgeHistory, view: &View) -> Markup {
    let rows: Vec<Row<'_>> =
        edge.broken.iter().enumerate().map(|(at, (name, counts))| Row { name, colour: at, counts }).collect();
    html! {
        figure class="edge" {
            figcaption {
                b { (title(edge.edge)) } " " span class="ratio" { (percent(edge.ratio())) } " broken"
            }
            @if view.recorded.is_none() {
                (columns(&format!("{} broken by minute", title(edge.edge)), view.minutes, &rows))
            }
            table {
                @for (at, (reason, counts)) in edge.broken.iter().enumerate() {
                    tr {
                        th scope="row" { span class=(format!("key c{at}")) {} (reason) }
                        td class="number" { (grouped(counts.iter().sum())) }
                    }
                }
                tr { th scope="row" { "whole" } td class="number" { (grouped(edge.whole)) } }
                @if edge.unseen > 0 {
                    tr { th scope="row" { "not judged (unseen)" } td class="number" { (grouped(edge.unseen)) } }
                }
            }
        }
    }
}

fn releases(releases: &[Release]) -> Markup {
    html! {
        table class="releases" {
            tr {
                th scope="col" { "release" } th scope="col" { "group" }
                th scope="col" { "requests" } th scope="col" { "exposures" } th scope="col" { "clicks" }
                th scope="col" { "CTR" } th scope="col" { "linked CTR" }
                @for edge in Edge::ALL { th scope="col" { (title(edge)) " broken" } }
            }
            @for release in releases {
                tr {
                    th scope="row" { (or_dash(&release.release)) }
                    td { (or_dash(&release.group)) }
                    td class="number" { (grouped(release.funnel.requests)) }
                    td class="number" { (grouped(release.funnel.exposures)) }
                    td class="number" { (grouped(release.funnel.clicks)) }
                    td class="number" { (percent(release.funnel.click_through_rate())) }
                    td class="number" { (percent(release.funnel.linked_click_through_rate())) }
                    @for (ratio, reason) in release.ratios.iter().zip(&release.reasons) {
                        td class="number" {
                            (percent(*ratio))
                            @if let Some(reason) = reason { " " span class="reason" { (reason) } }
                        }
                    }
                }
            }
        }
    }
}

fn examples(examples: &[BrokenLink], is_recorded: bool) -> Markup {
    let age = if is_recorded { "seconds before the end" } else { "seconds ago" };
    let with_ids = examples.iter().any(|example| example.ids.is_some());
    html! {
        @if !examples.is_empty() {
            h3 { "Broken lately" }
            table class="examples" {
                tr {
                    th scope="col" { "link" } th scope="col" { "reason" } th scope="col" { (age) }
                    th scope="col" { "release" } th scope="col" { "group" }
                    @if with_ids {
                        th scope="col" { "request id" } th scope="col" { "item id" } th scope="col" { "process" }
                    }
                }
                @for example in examples {
                    tr {
                        th scope="row" { (title(example.edge)) }
                        td { (example.reason) }
                        td class="number" { (grouped(example.seconds_ago)) }
                        td { (or_dash(&example.release)) }
                        td { (or_dash(&example.group)) }
                        @if with_ids { (ids(example.ids.as_ref())) }
                    }
                }
            }
        }
    }
}

fn ids(ids: Option<&Ids>) -> Markup {
    html! {
        @match ids {
            Some(ids) => {
                td { code { (or_dash(&ids.request_id)) } }
                td { code { (or_dash(&ids.item_id)) } }
                td class="number" { (ids.pid) }
            }
            None => { td { "–" } td { "–" } td { "–" } }
        }
    }
}

const fn title(edge: Edge) -> &'static str {
    match edge {
        Edge::RequestExposure => "request → exposure",
        Edge::ExposureClick => "exposure → click",
        Edge::ClickReport => "click → report",
        Edge::Triple => "whole triple",
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.2} %", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::{BrokenLink, Edge, Funnel, Ids, Release, Service, View, markup};

    #[test]
    fn what_a_process_says_of_itself_cannot_become_markup() {
        let release = Release {
            release: "<script>alert(1)</script>".to_owned(),
            group: "\"'><img src=x>".to_owned(),
            funnel: Funnel::default(),
            ratios: vec![None; 4],
            reasons: vec![Some("<script>alert(3)</script>".to_owned()); 4],
        };
        let example = BrokenLink {
            edge: Edge::Triple,
            reason: "broken",
            seconds_ago: 3,
            release: "<script>alert(2)</script>".to_owned(),
            group: String::new(),
            ids: Some(Ids { request_id: "<img src=y>".into(), item_id: "<b>,".into(), pid: 7 }),
        };
        let service = Service {
            name: "s".to_owned(),
            funnel: Funnel::default(),
            edges: Vec::new(),
            releases: vec![release],
            examples: vec![example],
        };
        let view = View {
            source: "<b>".to_owned(),
            minutes: 1,
            recorded: None,
            notes: Vec::new(),
            services: vec![service],
        };
        let page = markup(&view).into_string();
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<b>,"), "{page}");
        assert!(page.contains("&lt;script&gt;"));
    }

    #[test]
    fn a_page_asks_nobody_else_for_anything() {
        let view = View {
            source: "a".to_owned(),
            minutes: 1,
            recorded: None,
            notes: Vec::new(),
            services: Vec::new(),
        };
        let page = markup(&view).into_string();
        for forbidden in ["http:", "https:", "//", "@import", "url(", "<script", "<link"] {
            assert!(!page.contains(forbidden), "{forbidden} in {page}");
        }
    }
}
