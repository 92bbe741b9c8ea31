//! Every pod of the cluster, by what matters of it here.

use futures_util::stream::{BoxStream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, ObjectMeta, PartialObjectMeta};
use kube::core::{NotUsed, Object};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde::Deserialize;

/// What has ended is not governed any more.
const RUNNING: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// What is shown of a pod.
pub(super) struct Shown {
    pub metadata: ObjectMeta,
    /// Only if statuses are watched too.
    pub ready: bool,
}

/// What is read of a pod's status.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Status {
    /// Whether a condition is there and true.
    pub(super) fn is(&self, condition: &str) -> bool {
        self.conditions.iter().any(|it| it.kind == condition && it.status == "True")
    }
}

/// Watches for ever. Without statuses the API server sends less than a tenth.
pub(super) fn pods(client: Client, with_status: bool) -> BoxStream<'static, watcher::Result<watcher::Event<Shown>>> {
    let config = watcher::Config::default().fields(RUNNING);
    if with_status {
        let pods: Api<Object<NotUsed, Status>> = Api::all_with(client, &ApiResource::erase::<Pod>(&()));
        let shown = |pod: Object<NotUsed, Status>| {
            let ready = pod.status.is_some_and(|status| status.is("Ready"));
            Shown { metadata: pod.metadata, ready }
        };
        watcher(pods, config).default_backoff().map(move |event| Ok(each(event?, shown))).boxed()
    } else {
        let pods: Api<PartialObjectMeta<Pod>> = Api::all(client);
        let shown = |pod: PartialObjectMeta<Pod>| Shown { metadata: pod.metadata, ready: false };
        watcher(pods, config).default_backoff().map(move |event| Ok(each(event?, shown))).boxed()
    }
}

fn each<K>(event: watcher::Event<K>, shown: impl Fn(K) -> Shown) -> watcher::Event<Shown> {
    match event {
        watcher::Event::Apply(pod) => watcher::Event::Apply(shown(pod)),
        watcher::Event::Delete(pod) => watcher::Event::Delete(shown(pod)),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(pod) => watcher::Event::InitApply(shown(pod)),
        watcher::Event::InitDone => watcher::Event::InitDone,
    }
}
