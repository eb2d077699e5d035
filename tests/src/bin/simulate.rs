//! Prints the tables of docs/decisions.md: `cargo xtask simulate`.

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

use tests::simulation::{
    baselines::{Service, false_alarms},
    comparisons::{Release, STABLE, coverage, ever_said, z_test_ever_differs},
    gates::{Gate, Traffic, roll_out},
};
use tracer_user::slo::baseline::Method;

/// Any number; the same one gives the same tables.
const SEED: u64 = 2_026;

fn main() {
    gates();
    comparisons();
    baselines();
}

fn gates() {
    const REPETITIONS: u64 = 20_000;
    println!("Releases rolled back within 24 windows of 15 minutes, CTR 5 %, {REPETITIONS} rollouts each");
    println!("(in brackets: the gate never had a result)\n");
    println!(
        "| exposures per release and window | release | 2.3 % off, 3 windows | self-healing | dual-threshold |"
    );
    println!("|---|---|---|---|---|");
    for exposures in [10_000, 100_000, 1_000_000, 3_000_000] {
        for (name, loss) in [("healthy", 0.0), ("clicks 2.3 % less", 0.023), ("clicks 5 % less", 0.05)] {
            let traffic = Traffic { exposures, ctr: 0.05, loss };
            let cells = [Gate::Plain, Gate::SelfHealing, Gate::DualThreshold].map(|gate| {
                let ended = roll_out(gate, traffic, REPETITIONS, SEED);
                format!("{} ({})", ended.rolled_back, ended.silent)
            });
            println!("| {exposures} | {name} | {} |", cells.join(" | "));
        }
    }
}

fn comparisons() {
    const REPETITIONS: u64 = 20_000;
    println!("\n95 % intervals of the split that contain the truth, {REPETITIONS} comparisons each\n");
    println!("| exposures per release | canary | whole change | links broke | clicked less |");
    println!("|---|---|---|---|---|");
    let canaries = [
        ("as stable", STABLE),
        ("links break 2.3 %", Release { linked_share: STABLE.linked_share - 0.023, ..STABLE }),
        ("clicks 2.3 % less", Release { click_rate: STABLE.click_rate * 0.977, ..STABLE }),
    ];
    for exposures in [1_000, 20_000, 500_000] {
        for (name, canary) in canaries {
            let rates = coverage(STABLE, canary, exposures, REPETITIONS, SEED);
            println!("| {exposures} | {name} | {} |", rates.map(|rate| rate.to_string()).join(" | "));
        }
    }
    const LOOKS: u64 = 288;
    const ROLLOUTS: u64 = 200;
    println!(
        "\nVerdicts ever given over {LOOKS} looks at a growing window, 20000 exposures per release and look,"
    );
    println!("{ROLLOUTS} rollouts each\n");
    println!("| canary | ever worse | ever healthy | z-test at 5 % ever differs |");
    println!("|---|---|---|---|");
    for (name, canary) in canaries {
        let said = ever_said(canary, 20_000, LOOKS, ROLLOUTS, SEED);
        let z_test = z_test_ever_differs(canary, 20_000, LOOKS, ROLLOUTS, SEED);
        println!("| {name} | {} | {} | {z_test} |", said.worse, said.healthy);
    }
}

fn baselines() {
    const WEEKS: u64 = 20_000;
    println!("\nUsual hours called unusually low at the 5 % quantile, {WEEKS} weeks each\n");
    println!("| exposures per hour | method | all hours | quiet hours | busy hours |");
    println!("|---|---|---|---|---|");
    for (least, most) in [(1_000, 100_000), (10_000, 1_000_000), (300_000, 300_000)] {
        for (name, method) in [("beta-binomial", Method::BetaBinomial), ("beta-moments", Method::BetaMoments)]
        {
            let rates = false_alarms(Service { least, most }, method, WEEKS, SEED);
            println!("| {least} to {most} | {name} | {} |", rates.map(|rate| rate.to_string()).join(" | "));
        }
    }
}
