//! Small benchmarks for work on the join: one block of events with a million exposures pending.

use bench::naive::Naive;
use bench::workload::{Shape, Workload};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tracer_user::domain::{Counts, Labels};
use tracer_user::join::{Engine, Fingerprinter, JoinConfig, LabelsTable, Reports};

const PENDING: u64 = 1_000_000;
const BLOCK: usize = 10_000;

fn join(criterion: &mut Criterion) {
    let labels = LabelsTable::new(Reports::none()).key(&Labels::default().into()).0;
    let mut group = criterion.benchmark_group("join");
    group.throughput(Throughput::Elements(BLOCK as u64));
    let shape = Shape::usual(PENDING);
    for (name, shape) in [("usual", shape), ("clean", Shape { is_clean: true, ..shape })] {
        let mut workload = Workload::new(shape, labels);
        let mut engine = Engine::new(JoinConfig::default());
        let (mut block, mut counts) = (Vec::new(), Counts::default());
        for _ in 0..=shape.events_to_fill() / BLOCK as u64 {
            workload.fill(&mut block, BLOCK);
            block.iter().for_each(|event| engine.push(event, &mut counts));
        }
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || workload.by_ref().take(BLOCK).collect::<Vec<_>>(),
                |events| events.iter().for_each(|event| engine.push(event, &mut counts)),
                BatchSize::LargeInput,
            );
        });
    }
    let mut workload = Workload::new(shape, labels);
    let mut naive = Naive::<foldhash::fast::RandomState>::new(JoinConfig::default());
    workload
        .by_ref()
        .take(usize::try_from(shape.events_to_fill()).unwrap_or(0))
        .for_each(|event| naive.push(&event));
    group.bench_function("plain maps", |bencher| {
        bencher.iter_batched_ref(
            || workload.by_ref().take(BLOCK).collect::<Vec<_>>(),
            |events| events.iter().for_each(|event| naive.push(event)),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn fingerprint(criterion: &mut Criterion) {
    let prints = Fingerprinter::random();
    let mut group = criterion.benchmark_group("fingerprint");
    for length in [16, 36, 128] {
        let id = "x".repeat(length);
        group.bench_function(format!("{length} bytes"), |bencher| {
            bencher.iter(|| prints.request(std::hint::black_box(&id)));
        });
    }
    group.finish();
}

criterion_group!(benches, join, fingerprint);
criterion_main!(benches);
