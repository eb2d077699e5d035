//! Can what the services ask of Kubernetes be known?

use std::time::Duration;

use super::{Check, Status, check};
use crate::{
    config::{Config, Service},
    discover::pods::{self, Api, Failure, Reason},
};

/// The API has this long to answer here. The daemon itself waits for it as long as it takes.
const LIMIT: Duration = Duration::from_secs(2);

const SUBJECT: &str = "kubernetes";

/// Nothing where nothing is asked of it.
pub(super) fn checks(config: &Config) -> Vec<Check> {
    let asking = |asks: fn(&Service) -> bool| {
        let services = config.services.iter().filter(|service| asks(service));
        services.map(|service| service.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let node = &config.discover.node_name;
    if let Some(api) = pods::wanted(config) {
        return vec![answer(api, node)];
    }
    let remedy = "run it in a pod with a service account (the Helm chart does), or set KUBECONFIG to a file that says where the API is";
    let is_off = config.discover.kubernetes == Some(false);
    let why = if is_off { "`discover.kubernetes` is `false`" } else { "there is no Kubernetes API here" };
    let by_api = asking(|service| service.processes.asks_the_api());
    if !by_api.is_empty() {
        let remedy = if is_off { "set it to `auto`" } else { remedy };
        let text = format!(
            "{by_api}: only the Kubernetes API knows `image` and `pod_labels`, and {why}\n  remedy: {remedy}"
        );
        return vec![check(SUBJECT, Status::Failed, text)];
    }
    if config.discover.kubernetes == Some(true) {
        let text = format!("`discover.kubernetes` is `true`, and there is no API here\n  remedy: {remedy}");
        return vec![check(SUBJECT, Status::Failed, text)];
    }
    let by_pod = asking(Service::asks_for_pod);
    if by_pod.is_empty() {
        return Vec::new();
    }
    let text = format!(
        "{by_pod}: {why}: a namespace is what processes in a pod say in POD_NAMESPACE, and releases and groups are taken from no image and no label"
    );
    vec![check(SUBJECT, Status::Limited, text)]
}

fn answer(api: Api, node: &str) -> Check {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let found = match runtime {
        Ok(runtime) => runtime.block_on(pods::look(api, node, LIMIT)),
        Err(error) => return check(SUBJECT, Status::Failed, format!("cannot ask {api}: {error}")),
    };
    match found {
        Ok(0) => {
            let remedy = "set `discover.node_name`, or the variable NODE_NAME, to the name that `kubectl get nodes` shows";
            let text = format!("{api} knows no pod on a node {node}\n  remedy: {remedy}");
            check(SUBJECT, Status::Limited, text)
        }
        Ok(count) => check(SUBJECT, Status::Good, format!("{api} knows {count} pods on this node ({node})")),
        Err(failure) => {
            let text = format!(
                "{api} does not say which pods are on this node: {failure}; processes wait for it, at most for `discover.pod_wait`, and what they do after that is lost until it answers\n  remedy: {}",
                remedy(&failure)
            );
            check(SUBJECT, Status::Limited, text)
        }
    }
}

const fn remedy(failure: &Failure) -> &'static str {
    match failure.reason {
        Reason::Refused => {
            "let its service account get, list and watch pods, as deploy/kustomize/base/objects.yaml does"
        }
        Reason::Configuration => "correct what KUBECONFIG names, or the service account's token",
        Reason::Unreachable | Reason::Expired | Reason::Unreadable | Reason::Silent => {
            "look why the API server cannot be reached from this node"
        }
    }
}
