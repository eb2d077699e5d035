//! Reads what the guest told: on its second serial line how far it came, which carries nothing else, so that no kernel
//! message and no program's output can cut one of its lines in two; on the first what the commands printed.

use std::time::Duration;

use super::{GuestCommand, Status};

/// How far the guest came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// The guest's time when its first process was ready.
    pub(super) boot: Option<Duration>,
    /// Of every command that ended, in order.
    pub(super) statuses: Vec<Status>,
    /// The command that began and did not end.
    running: Option<usize>,
    /// Whether every command ended and the guest went down by itself.
    pub(super) complete: bool,
}

impl Report {
    /// Where it ended, in words for a person.
    pub(super) fn place(&self, commands: &[GuestCommand]) -> String {
        match (self.boot, self.running.and_then(|index| commands.get(index))) {
            (None, _) => "before it was up".to_owned(),
            (Some(_), Some(command)) => format!("during `{}`", command.line),
            (Some(_), None) => format!("after {} of {} commands", self.statuses.len(), commands.len()),
        }
    }
}

/// Lines that are not understood are passed over; what they would have said is then missing, and that is noticed.
pub(super) fn parse(text: &str, commands: &[GuestCommand]) -> Report {
    let mut report = Report::default();
    let mut begun = Duration::ZERO;
    let mut done = false;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["up", time] => report.boot = seconds(time),
            ["begin", index, time] => {
                report.running = index.parse().ok();
                begun = seconds(time).unwrap_or_default();
            }
            ["end", index, code, time] => {
                let (Ok(index), Ok(code), Some(ended)) =
                    (index.parse::<usize>(), code.parse(), seconds(time))
                else {
                    continue;
                };
                let Some(command) = commands.get(index).filter(|_| index == report.statuses.len()) else {
                    continue;
                };
                let duration = ended.saturating_sub(begun);
                let output = String::new();
                report.statuses.push(Status { line: command.line.clone(), code, duration, output });
                report.running = None;
            }
            ["done"] => done = true,
            _ => {}
        }
    }
    report.complete = done && report.statuses.len() == commands.len();
    report
}

/// What the first line showed of each command, in order: init writes the command line before it begins.
pub(super) fn outputs(console: &[String], commands: &[GuestCommand]) -> Vec<String> {
    let mut outputs: Vec<String> = Vec::new();
    for line in console {
        let next = commands.get(outputs.len());
        if next.is_some_and(|command| line.strip_prefix("$ ") == Some(&command.line)) {
            outputs.push(String::new());
        } else if let Some(output) = outputs.last_mut() {
            output.push_str(line);
            output.push('\n');
        }
    }
    outputs
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands() -> Vec<GuestCommand> {
        ["true", "false"].map(|line| GuestCommand { line: line.to_owned() }).to_vec()
    }

    #[test]
    fn a_guest_that_came_through_gives_every_exit_code() {
        let text = "up 2.50\r\nbegin 0 2.60\r\nend 0 0 3.60\r\nbegin 1 3.60\r\nend 1 1 3.70\r\ndone\r\n";
        let report = parse(text, &commands());
        assert!(report.complete);
        assert_eq!(report.boot, Some(Duration::from_millis(2500)));
        assert_eq!(report.statuses.iter().map(|status| status.code).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(report.statuses[0].duration, Duration::from_secs(1));
    }

    #[test]
    fn what_is_printed_belongs_to_the_command_before_it() {
        let console = ["boot", "$ true", "a", "$ nonsense", "$ false", "b"].map(str::to_owned);
        assert_eq!(outputs(&console, &commands()), ["a\n$ nonsense\n", "b\n"]);
    }

    #[test]
    fn a_guest_that_stopped_says_where() {
        let report = |text| parse(text, &commands());
        assert_eq!(report("").place(&commands()), "before it was up");
        assert_eq!(report("up 2\nbegin 0 2\n").place(&commands()), "during `true`");
        assert_eq!(report("up 2\nbegin 0 2\nend 0 0 3\n").place(&commands()), "after 1 of 2 commands");
        assert!(!report("up 2\nbegin 0 2\nend 0 0 3\n").complete);
    }

    #[test]
    fn an_end_that_was_lost_is_not_made_up_for_by_a_later_one() {
        let report = parse("up 2\nbegin 0 2\nbegin 1 3\nend 1 0 4\ndone\n", &commands());
        assert!(!report.complete);
        assert!(report.statuses.is_empty());
    }
}
