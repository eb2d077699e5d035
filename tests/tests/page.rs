//! The daemon's page in a real browser: it says what the metrics say, draws it, and asks nobody else for anything.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tests::{binary, browser::browse};
use tracer_user::demo::http::get_once;

/// A demo whose daemon goes on serving. Killed when it is dropped.
struct Demo {
    child: Child,
    address: String,
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(binary())
            .args(["demo", "--requests=500", "--seed=3", "--keep"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("is piped"));
        let address = stdout
            .lines()
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("metrics: http://")?.split('/').next()?.to_owned()))
            .expect("the demo ends with the URL of its metrics");
        Self { child, address }
    }

    fn stop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("is our child");
        assert!(self.child.wait().expect("is our child").success());
    }

    /// Sums of a counter by the value of one of its labels.
    fn counts(&self, metric: &str, label: &str, among: &str) -> BTreeMap<String, u64> {
        let address = self.address.parse().expect("an address");
        let text = String::from_utf8(get_once(address, "/metrics").expect("answers").body).expect("text");
        let mut sums = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with(metric) && line.contains(among)) {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (_, rest) = series.split_once(&format!("{label}=\"")).expect("has the label");
            let (name, _) = rest.split_once('"').expect("a closed label");
            *sums.entry(name.to_owned()).or_default() += value.parse::<u64>().expect("a whole number");
        }
        sums
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It takes its daemon with it only when it is asked to end. It may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let _ = self.child.wait();
    }
}

/// The number that stands in the row of that name, in the part of the page that begins with `after`.
#[track_caller]
fn row(page: &str, after: &str, name: &str) -> u64 {
    let (_, part) = page.split_once(after).unwrap_or_else(|| panic!("no {after} in {page}"));
    let (_, rest) = part.split_once(&format!("{name}</th>")).unwrap_or_else(|| panic!("no {name} in {part}"));
    let (_, rest) = rest.split_once("class=\"number\">").expect("a number");
    let (number, _) = rest.split_once('<').expect("a closed cell");
    number.replace(',', "").parse().unwrap_or_else(|error| panic!("{name}: {number}: {error}"))
}

/// How many pixels have each of these colours.
fn pixels(picture: &Path, colours: &[[u8; 3]]) -> Vec<usize> {
    let decoder = png::Decoder::new(BufReader::new(File::open(picture).expect("the picture is there")));
    let mut reader = decoder.read_info().expect("a PNG");
    let mut data = vec![0; reader.output_buffer_size().expect("fits")];
    let info = reader.next_frame(&mut data).expect("a picture");
    let samples = info.color_type.samples();
    let count = |colour: &[u8; 3]| data.chunks_exact(samples).filter(|pixel| pixel[..3] == *colour).count();
    colours.iter().map(count).collect()
}

#[test]
fn the_page_shows_what_the_metrics_say_and_draws_it() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mut demo = Demo::start();
    let picture = scratch.path().join("page.png");
    let url = format!("http://{}/", demo.address);
    let profile = scratch.path().join("profile");
    let screenshot = format!("--screenshot={}", picture.display());
    let page = browse(&url, &profile, &["--dump-dom", &screenshot]);
    assert!(!page.contains("<script"), "the page is whole without scripts");

    let requests = demo.counts("linktracer_requests_total", "outcome", "");
    let exposures = demo.counts("linktracer_links_total", "outcome", "edge=\"request_exposure\"");
    let clicks = demo.counts("linktracer_links_total", "outcome", "edge=\"exposure_click\"");
    let reports = demo.counts("linktracer_links_total", "outcome", "edge=\"click_report\"");
    let triples = demo.counts("linktracer_links_total", "outcome", "edge=\"triple\"");
    let lost: u64 = demo.counts("linktracer_lost_events_total", "reason", "").values().sum();
    assert!(triples["broken"] > 0 && lost > 0, "the demo has faults: {triples:?}, {lost}");

    let funnel = "From request to click";
    assert_eq!(row(&page, funnel, "requests"), requests.values().sum::<u64>());
    assert_eq!(row(&page, funnel, "requests exposed"), requests["exposed"]);
    assert_eq!(row(&page, funnel, "exposures"), exposures.values().sum::<u64>());
    assert_eq!(row(&page, funnel, "clicks"), clicks.values().sum::<u64>());
    assert_eq!(row(&page, funnel, "clicks linked to their exposure"), clicks["linked"]);
    assert_eq!(row(&page, funnel, "complete triples"), triples["complete"]);
    for (edge, outcome, expected) in [
        ("request → exposure</b>", "orphan", exposures["orphan"]),
        ("request → exposure</b>", "missing_id", exposures["missing_id"]),
        ("request → exposure</b>", "whole", exposures["linked"]),
        ("exposure → click</b>", "mismatch", clicks["mismatch"]),
        ("exposure → click</b>", "orphan", clicks["orphan"]),
        ("click → report</b>", "unreported", reports["unreported"]),
        ("whole triple</b>", "broken", triples["broken"]),
    ] {
        assert_eq!(row(&page, edge, outcome), expected, "{edge} {outcome}");
    }
    assert!(page.contains(&format!("{lost} events were lost in the time shown")), "{page}");

    // The last broken links, with ids that the demo makes.
    let (_, examples) = page.split_once("Broken lately").expect("the demo breaks links");
    for word in ["request id", "request → exposure", "whole triple", "<code>item-"] {
        assert!(examples.contains(word), "{word}: {examples}");
    }
    // Which requests they are differs from run to run.
    let ids = examples.split("<code>r").skip(1).map(|rest| {
        let (id, _) = rest.split_once("</code>").expect("a closed id");
        id.split_once('-').expect("a number and a random part")
    });
    let known = |(number, random): (&str, &str)| {
        number.parse::<u32>().is_ok() && random.len() == 16 && u64::from_str_radix(random, 16).is_ok()
    };
    let ids: Vec<_> = ids.collect();
    assert!(!ids.is_empty() && ids.iter().copied().all(known), "{ids:?}");
    let reasons = ["orphan", "missing_id", "mismatch", "unreported", "broken"];
    let rows = examples.matches("<th scope=\"row\">").count();
    let known: usize =
        reasons.iter().map(|reason| examples.matches(&format!("<td>{reason}</td>")).count()).sum();
    assert!(rows > 10 && rows == known, "{rows} rows, {known} of them with a reason: {examples}");

    // Bars of the funnel and columns of broken links, in the colours of the style.
    let drawn = pixels(&picture, &[[0x20, 0x70, 0x6b], [0xb3, 0x26, 0x1e], [0xd9, 0x82, 0x00]]);
    assert!(drawn.iter().all(|count| *count > 100), "{drawn:?}");
    demo.stop();
}
