//! Writing to the API server: each request asks first whether this process still leads, is over before its rights
//! could be another's, and names the very object that it means.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use echotune_api::demand::ServerName;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    build::{Child, Children, DRAINING_SINCE, FINALIZER, MANAGED_BY, MANAGER, REVISION, SERVER, SERVING},
    crd::{MCPServer, MCPServerStatus},
    lease::{Lost, Permit},
    metrics::Metrics,
};

/// Why something was not written, or perhaps was.
#[derive(Debug, Error)]
pub enum WriteError {
    /// This process leads no more.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// What is there is not as it was thought to be.
    #[error("{what} is not as it was thought to be: {why}")]
    Conflict {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// Something that is not the operator's has the name.
    #[error("{what} {name} is there already and is not the operator's: {why}")]
    Foreign {
        /// What.
        what: &'static str,
        /// Its name.
        name: String,
        /// How that is known.
        why: String,
    },
    /// The API server refuses it.
    #[error("the API server refuses {what}: {why} ({code})")]
    Refused {
        /// What.
        what: &'static str,
        /// The HTTP status.
        code: u16,
        /// Why.
        why: String,
    },
    /// Nobody knows whether it was written.
    #[error("it is not known whether {what} was written: {why}")]
    Unknown {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
}

impl WriteError {
    /// As metrics name it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Lost(_) => "fenced",
            Self::Conflict { .. } => "conflict",
            Self::Foreign { .. } => "foreign",
            Self::Refused { code: 429, .. } => "throttled",
            Self::Refused { .. } => "refused",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// Whether it would be refused again as it is, so that people have to know of it.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Refused { code: 400 | 403 | 422, .. })
    }
}

/// Writes to one server.
#[derive(Clone)]
pub struct Writer {
    /// The way to the API server.
    pub client: Client,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How long a request may take.
    pub patience: Duration,
    /// The right to write.
    pub permit: Permit,
    /// Which server.
    pub server: ServerName,
    /// Its uid.
    pub uid: String,
}

impl Writer {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), self.server.namespace())
    }

    async fn within<T>(
        &self,
        what: &'static str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, WriteError> {
        let asked = async {
            self.permit.check()?;
            match timeout(self.patience, request).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(cause)) => Err(failure(what, cause)),
                Err(_) => Err(WriteError::Unknown { what, why: format!("no answer within {:?}", self.patience) }),
            }
        };
        let answer = asked.await;
        self.metrics.wrote(what, answer.as_ref().err().map_or("ok", WriteError::name));
        answer
    }

    /// Makes a pod. One of its name that is there already is looked at: it may be the very one.
    ///
    /// # Errors
    /// It could not be made, or nobody knows; or another has its name.
    pub async fn create(&self, pod: &Pod) -> Result<(), WriteError> {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match self.within("pod", self.api::<Pod>().create(&params, pod)).await {
            Ok(_) => Ok(()),
            Err(conflict @ WriteError::Conflict { .. }) => self.meet(pod, conflict).await,
            Err(cause) => Err(cause),
        }
    }

    /// Looks at what has the name of a pod that could not be made. A list of one needs no right but that by which pods
    /// are watched.
    async fn meet(&self, wanted: &Pod, conflict: WriteError) -> Result<(), WriteError> {
        let (api, name) = (self.api::<Pod>(), wanted.name_any());
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = self.within("read", api.list_metadata(&params)).await?;
        // It has gone meanwhile, or what stood in the way was something else, such as a quota that was being counted.
        let Some(found) = found.items.into_iter().find(|found| found.metadata.name.as_ref() == Some(&name)) else {
            return Err(conflict);
        };
        match met(&found.metadata, &wanted.metadata) {
            Met::Ours => Ok(()),
            Met::Lost => self.claim(&name, &found.metadata, &wanted.metadata).await,
            Met::Foreign(why) => Err(WriteError::Foreign { what: "pod", name, why }),
        }
    }

    /// Gives a pod that is ours the labels and the owner back that it has lost.
    async fn claim(&self, name: &str, found: &ObjectMeta, wanted: &ObjectMeta) -> Result<(), WriteError> {
        let labels = claimed(found, wanted);
        let told = json!({
            "apiVersion": Pod::api_version(&()),
            "kind": Pod::kind(&()),
            "metadata": { "uid": found.uid, "labels": labels, "ownerReferences": wanted.owner_references },
        });
        tracing::warn!("pod {name} of {} had lost what it is known by, and gets it back", self.server);
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), force: true, ..PatchParams::default() };
        let api = self.api::<Pod>();
        self.within("claim", api.patch_metadata(name, &params, &Patch::Apply(told))).await.map(drop)
    }

    /// Marks a pod as one that drains since then, or takes the mark away.
    ///
    /// # Errors
    /// The pod is gone or another, or it could not be written.
    pub async fn mark(&self, name: &str, uid: &str, since_ms: Option<u64>) -> Result<(), WriteError> {
        let serving = if since_ms.is_some() { "false" } else { "true" };
        let metadata = json!({
            "uid": uid,
            "labels": { SERVING: serving },
            "annotations": { DRAINING_SINCE: since_ms.map(|ms| ms.to_string()) },
        });
        self.merge::<Pod>("mark", name, json!({ "metadata": metadata })).await
    }

    /// Deletes exactly this pod. One that is gone is gone.
    ///
    /// # Errors
    /// It could not be deleted, or nobody knows.
    pub async fn delete(&self, name: &str, uid: &str) -> Result<(), WriteError> {
        let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        match self.within("delete", self.api::<Pod>().delete(name, &params)).await {
            Ok(_) | Err(WriteError::Refused { code: 404, .. } | WriteError::Conflict { .. }) => Ok(()),
            Err(cause) => Err(cause),
        }
    }

    /// Applies something beside the pods. Only what is known to be the operator's is taken back from others who wrote
    /// to it.
    ///
    /// # Errors
    /// Something stands there that is not the operator's, or it could not be written.
    pub async fn apply(&self, child: Child, children: &Children, ours: bool) -> Result<(), WriteError> {
        match child {
            Child::Account => self.apply_one("account", &children.account, ours).await,
            Child::Service => self.apply_one("service", &children.service, ours).await,
            Child::Network => self.apply_one("network", &children.network, ours).await,
            Child::Budget => self.apply_one("budget", &children.budget, ours).await,
        }
    }

    /// Keeps what was learned.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn keep(&self, learned: &ConfigMap) -> Result<(), WriteError> {
        self.apply_one("learned", learned, true).await
    }

    async fn apply_one<K>(&self, what: &'static str, object: &K, force: bool) -> Result<(), WriteError>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + fmt::Debug + Serialize + DeserializeOwned,
        K::DynamicType: Default,
    {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), force, ..PatchParams::default() };
        let mut told = serde_json::to_value(object).map_err(|cause| unfit(what, &cause))?;
        told["apiVersion"] = Value::from(K::api_version(&K::DynamicType::default()).into_owned());
        told["kind"] = Value::from(K::kind(&K::DynamicType::default()).into_owned());
        let (api, name) = (self.api::<K>(), object.name_any());
        self.within(what, api.patch(&name, &params, &Patch::Apply(told))).await.map(drop)
    }

    async fn merge<K>(&self, what: &'static str, name: &str, change: Value) -> Result<(), WriteError>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + fmt::Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.api::<K>();
        self.within(what, api.patch_metadata(name, &params, &Patch::Merge(change))).await.map(drop)
    }

    /// Puts the finalizer on the server, or takes it off. Others that it has stay as they are: it is written over the
    /// version that is read.
    ///
    /// # Errors
    /// The server has changed, or it could not be written.
    pub async fn hold(&self, held: bool) -> Result<(), WriteError> {
        let api = self.api::<MCPServer>();
        let found = self.within("read", api.get_metadata_opt(self.server.name())).await?;
        let Some(found) = found.filter(|found| found.metadata.uid.as_deref() == Some(&self.uid)) else {
            return Ok(());
        };
        let mut finalizers = found.metadata.finalizers.unwrap_or_default();
        finalizers.retain(|one| one != FINALIZER);
        if held {
            finalizers.push(FINALIZER.to_owned());
        }
        let version = found.metadata.resource_version;
        let metadata = json!({ "finalizers": finalizers, "resourceVersion": version });
        self.merge::<MCPServer>("finalizer", self.server.name(), json!({ "metadata": metadata })).await
    }

    /// Says how many pods there are to be, unless somebody else does.
    ///
    /// # Errors
    /// Somebody else does, or it could not be written.
    pub async fn scale(&self, replicas: u32) -> Result<(), WriteError> {
        let params = PatchParams::apply(MANAGER);
        let told = json!({
            "apiVersion": MCPServer::api_version(&()),
            "kind": MCPServer::kind(&()),
            "metadata": { "name": self.server.name(), "uid": self.uid },
            "spec": { "replicas": replicas },
        });
        let api = self.api::<MCPServer>();
        self.within("scale", api.patch_metadata(self.server.name(), &params, &Patch::Apply(told))).await.map(drop)
    }

    /// Tells what became of the server.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn status(&self, status: &MCPServerStatus) -> Result<(), WriteError> {
        let change = json!({ "metadata": { "uid": self.uid }, "status": status });
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.api::<MCPServer>();
        let name = self.server.name();
        self.within("status", api.patch_status(name, &params, &Patch::Merge(change))).await.map(drop)
    }
}

/// What a pod is that has the name of another that was to be made.
#[derive(Debug, PartialEq, Eq)]
enum Met {
    /// The very one.
    Ours,
    /// The very one, which has lost a label or its owner: nobody sees it.
    Lost,
    /// Somebody else's.
    Foreign(String),
}

/// Whose a pod is: its owner's, or where it has none, whose labels it has.
fn met(found: &ObjectMeta, wanted: &ObjectMeta) -> Met {
    let owner = |metadata: &ObjectMeta| {
        metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true)).cloned()
    };
    let label = |metadata: &ObjectMeta, name: &str| metadata.labels.as_ref()?.get(name).cloned();
    let known = [MANAGED_BY, SERVER, REVISION].map(|name| label(found, name) == label(wanted, name));
    match owner(found) {
        Some(other) if owner(wanted).is_none_or(|ours| ours.uid != other.uid) => {
            Met::Foreign(format!("it is {} {}'s", other.kind, other.name))
        }
        Some(_) if known == [true; 3] => Met::Ours,
        Some(_) => Met::Lost,
        None if known[..2] == [true; 2] => Met::Lost,
        None => Met::Foreign("it has neither the labels nor the owner of the server's pods".to_owned()),
    }
}

/// The labels that a pod gets back. One that drains goes on draining.
fn claimed(found: &ObjectMeta, wanted: &ObjectMeta) -> BTreeMap<String, String> {
    let mut labels = wanted.labels.clone().unwrap_or_default();
    if found.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(DRAINING_SINCE)) {
        labels.insert(SERVING.to_owned(), "false".to_owned());
    }
    labels
}

fn unfit(what: &'static str, cause: &serde_json::Error) -> WriteError {
    WriteError::Refused { what, code: 0, why: cause.to_string() }
}

fn failure(what: &'static str, cause: kube::Error) -> WriteError {
    match cause {
        kube::Error::Api(status) if status.code == 409 => WriteError::Conflict { what, why: status.message },
        // The server itself failed: what it did until then is not known.
        kube::Error::Api(status) if status.code >= 500 => WriteError::Unknown { what, why: status.message },
        kube::Error::Api(status) => WriteError::Refused { what, code: status.code, why: status.message },
        cause => WriteError::Unknown { what, why: cause.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{Subject, Surroundings, pod, template};

    fn wanted(uid: &str) -> ObjectMeta {
        let spec = serde_json::from_value(json!({ "image": "localhost/demo:1" })).expect("a spec");
        let subject = Subject { namespace: "m", name: "s", uid, spec: &spec };
        let template = template(subject, &Surroundings::default()).expect("a template");
        pod(subject, &template, 0).metadata
    }

    #[test]
    fn a_pod_is_its_owners_and_without_one_whose_labels_it_has() {
        let ours = wanted("one");
        assert_eq!(met(&ours, &ours), Met::Ours);
        let changed = |change: fn(&mut ObjectMeta)| {
            let mut found = ours.clone();
            change(&mut found);
            met(&found, &ours)
        };
        assert_eq!(changed(|found| found.labels = None), Met::Lost);
        assert_eq!(changed(|found| drop(found.labels.as_mut().and_then(|labels| labels.remove(REVISION)))), Met::Lost);
        assert_eq!(changed(|found| found.owner_references = None), Met::Lost);
        let theirs = changed(|found| (found.labels, found.owner_references) = (None, None));
        assert!(matches!(theirs, Met::Foreign(_)), "{theirs:?}");
        // As one of before that had the same name, whose pods are not gone yet.
        let before = met(&wanted("another"), &ours);
        assert_eq!(before, Met::Foreign("it is MCPServer s's".to_owned()));
    }

    #[test]
    fn a_pod_that_drains_goes_on_draining_when_it_gets_its_labels_back() {
        let ours = wanted("one");
        let mut found = ObjectMeta::default();
        assert_eq!(Some(claimed(&found, &ours)), ours.labels);
        found.annotations = Some(BTreeMap::from([(DRAINING_SINCE.to_owned(), "1".to_owned())]));
        let labels = claimed(&found, &ours);
        assert_eq!((labels[SERVING].as_str(), labels[SERVER].as_str()), ("false", "s"));
    }
}
