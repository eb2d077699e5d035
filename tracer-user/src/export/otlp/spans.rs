//! A triple as spans.
//!
//! What was seen is moments, so every span begins and ends at the time of its event. Attributes keep to the semantic
//! conventions of OpenTelemetry where these have a name; what is linktracer's own begins with `linktracer.`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Link, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanLinks},
};

use super::{
    ids,
    record::Part,
    sample::{Told, Triple},
};
use crate::{
    build,
    domain::{Edge, Labels},
};

/// Who tells: the process of these labels on this node.
pub(super) fn resource(source: &str, labels: &Labels) -> Resource {
    let named = [
        ("service.name", &*labels.service),
        ("service.version", &*labels.release),
        ("linktracer.group", &*labels.group),
        ("host.name", source),
    ];
    let attributes = named.into_iter().filter(|(_, value)| !value.is_empty());
    let attributes = attributes.map(|(name, value)| KeyValue::new(name, value.to_owned()));
    Resource::builder_empty().with_attributes(attributes).build()
}

/// The spans of a triple, each with the labels of its event. Ids are among their attributes when `show_ids` is set.
pub(super) fn of(triple: &Triple, show_ids: bool) -> Vec<(Arc<Labels>, SpanData)> {
    let maker = Maker { request_id: &triple.request_id, show_ids };
    let told = triple.told.iter().map(|told| (Arc::clone(&told.part.labels), maker.told(told)));
    told.chain([(Arc::clone(&triple.click.labels), maker.click(triple))]).collect()
}

struct Maker<'a> {
    request_id: &'a str,
    show_ids: bool,
}

impl Maker<'_> {
    /// A request, or an exposure as its child.
    fn told(&self, told: &Told) -> SpanData {
        let mut span = self.span(self.context(&told.part), &told.part);
        if let Some(request) = &told.request {
            span.parent_span_id = self.context(request).span_id();
        }
        if let Some(reason) = told.broken {
            self.set_broken(&mut span, Edge::RequestExposure, reason);
        }
        span
    }

    /// The click, in its own trace.
    fn click(&self, triple: &Triple) -> SpanData {
        let Part { item_id, timestamp_ns, kind, .. } = &triple.click;
        let trace = ids::of_click(self.request_id, item_id, *timestamp_ns);
        let context = context(trace, ids::of_span(trace, *kind, item_id, *timestamp_ns));
        let mut span = self.span(context, &triple.click);
        let outcome = if triple.broken.is_some() { "broken" } else { "complete" };
        span.attributes.push(KeyValue::new("linktracer.triple", outcome));
        if let Some((edge, reason)) = triple.broken {
            self.set_broken(&mut span, edge, reason);
        }
        if let Some(part) = &triple.leads_to {
            let to = KeyValue::new("linktracer.kind", part.kind.name());
            span.links.links = vec![Link::new(self.context(part), vec![to], 0)];
        }
        span
    }

    fn span(&self, span_context: SpanContext, part: &Part) -> SpanData {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(part.timestamp_ns);
        let mut attributes = vec![KeyValue::new("process.pid", i64::from(part.pid))];
        if self.show_ids {
            let ids = [("linktracer.request_id", self.request_id), ("linktracer.item_id", &*part.item_id)];
            let ids = ids.into_iter().filter(|(_, id)| !id.is_empty());
            attributes.extend(ids.map(|(name, id)| KeyValue::new(name, id.to_owned())));
        }
        SpanData {
            span_context,
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: part.kind.name().into(),
            start_time: time,
            end_time: time,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder("linktracer")
                .with_version(build::VERSION)
                .build(),
        }
    }

    fn set_broken(&self, span: &mut SpanData, edge: Edge, reason: &'static str) {
        span.status = Status::error(format!("{}: {reason}", edge.name()));
        span.attributes.push(KeyValue::new("linktracer.edge", edge.name()));
        span.attributes.push(KeyValue::new("linktracer.reason", reason));
    }

    /// Of a request or an exposure of the triple's request id.
    fn context(&self, part: &Part) -> SpanContext {
        let trace = ids::of_request(self.request_id);
        context(trace, ids::of_span(trace, part.kind, &part.item_id, part.timestamp_ns))
    }
}

fn context(trace: u128, span: u64) -> SpanContext {
    SpanContext::new(TraceId::from(trace), SpanId::from(span), TraceFlags::SAMPLED, false, TraceState::NONE)
}
