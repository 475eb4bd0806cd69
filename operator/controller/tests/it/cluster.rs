//! An API server on the loopback: as much of one as the operator notices. It keeps objects with versions, uids and
//! finalizers, answers watches, owns fields as far as `spec.replicas` goes, and fails when it is told to.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Method, Request, Response, StatusCode},
};
use futures::StreamExt as _;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{RwLock, RwLockWriteGuard, broadcast},
};

use crate::selectors::{Target, merge, parameters, selected};

/// NAMESPACE, NAME.
type Place = (String, String);

/// What is done to a request instead of what it asks for: a status, or silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is refused by this status.
    Status(u16),
    /// It is done, and the answer is lost.
    Lost,
}

type Script = Box<dyn FnMut(&str, &Target) -> Option<Fault> + Send>;

pub(crate) struct Cluster {
    kept: Mutex<Kept>,
    /// Whose turn it is to change something: from what it is made of up to where watches are told.
    turn: Mutex<()>,
    /// Held by whoever makes pods wait.
    pods: RwLock<()>,
    events: broadcast::Sender<(String, Value)>,
    address: SocketAddr,
}

#[derive(Default)]
struct Kept {
    objects: BTreeMap<String, BTreeMap<Place, Value>>,
    last: u64,
    /// What is there no more, by plural, each with the version at which it went.
    gone: Vec<(String, Value)>,
    /// Requests that changed something, as `VERB plural/name`.
    writes: Vec<String>,
    /// Who owns `spec.replicas`, and what each says.
    replicas: HashMap<Place, BTreeMap<String, Value>>,
    script: Option<Script>,
    /// Watches that began before are told that they have expired.
    expired: u64,
}

impl Cluster {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (kept, turn, events) = (Mutex::default(), Mutex::default(), broadcast::Sender::new(4_096));
        let cluster = Arc::new(Self { kept, turn, pods: RwLock::default(), events, address });
        let serving = Arc::clone(&cluster);
        let router = Router::new().fallback(move |request: Request<Body>| {
            let cluster = Arc::clone(&serving);
            async move { cluster.answer(request).await }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        cluster
    }

    pub(crate) fn client(&self) -> Client {
        let uri = format!("http://{}", self.address).parse().expect("an address");
        let mut config = Config::new(uri);
        config.default_retry = false;
        Client::try_from(config).expect("a client")
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nobody panicked")
    }

    /// Nobody else changes anything until it is dropped.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().expect("nobody panicked")
    }

    /// What is done to requests from now on, by verb and target.
    pub(crate) fn script(&self, script: impl FnMut(&str, &Target) -> Option<Fault> + Send + 'static) {
        self.kept().script = Some(Box::new(script));
    }

    pub(crate) fn behave(&self) {
        self.kept().script = None;
    }

    /// No pod is made until what this answers is dropped: whoever makes one waits.
    pub(crate) async fn without_new_pods(&self) -> RwLockWriteGuard<'_, ()> {
        self.pods.write().await
    }

    /// Every watch is told that its version is too old, and ends.
    pub(crate) fn expire(&self) {
        self.kept().expired += 1;
        let status =
            json!({ "kind": "Status", "code": 410, "reason": "Expired", "message": "too old", "status": "Failure" });
        let _ = self.events.send((String::new(), json!({ "type": "ERROR", "object": status })));
    }

    /// Requests that changed something since this was last asked, without those that match.
    pub(crate) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.kept().writes)
    }

    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.kept().objects.get(plural)?.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub(crate) fn all(&self, plural: &str) -> Vec<Value> {
        self.kept().objects.get(plural).map(|all| all.values().cloned().collect()).unwrap_or_default()
    }

    /// Puts an object there, as somebody else would.
    pub(crate) fn put(&self, plural: &str, object: Value) {
        let _turn = self.turn();
        self.store(plural, object);
    }

    fn store(&self, plural: &str, object: Value) {
        let place = place(&object);
        let mut kept = self.kept();
        let before = kept.objects.get(plural).and_then(|all| all.get(&place)).cloned();
        let object = kept.fill(object, before.as_ref());
        let told = if before.is_some() { "MODIFIED" } else { "ADDED" };
        kept.objects.entry(plural.to_owned()).or_default().insert(place, object.clone());
        drop(kept);
        self.tell(plural, told, &object);
    }

    /// Changes an object that is there, as somebody else would.
    pub(crate) fn change(&self, plural: &str, namespace: &str, name: &str, change: &Value) {
        assert!(self.change_if_there(plural, namespace, name, change), "{plural}/{name} is not there");
    }

    /// The same with one that may have gone: whether it was there.
    pub(crate) fn change_if_there(&self, plural: &str, namespace: &str, name: &str, change: &Value) -> bool {
        let _turn = self.turn();
        self.amend(plural, namespace, name, change)
    }

    fn amend(&self, plural: &str, namespace: &str, name: &str, change: &Value) -> bool {
        let Some(mut object) = self.get(plural, namespace, name) else { return false };
        merge(&mut object, change);
        self.store(plural, object);
        true
    }

    /// Somebody else says how many pods there are.
    pub(crate) fn scale(&self, namespace: &str, name: &str, manager: &str, replicas: Value) {
        let _turn = self.turn();
        let place = (namespace.to_owned(), name.to_owned());
        let owners = BTreeMap::from([(manager.to_owned(), replicas.clone())]);
        self.kept().replicas.insert(place.clone(), if replicas.is_null() { BTreeMap::new() } else { owners });
        let fields = self.kept().fields(&place);
        let change = json!({ "spec": { "replicas": replicas }, "metadata": { "managedFields": fields } });
        assert!(self.amend("mcpservers", namespace, name, &change), "{name} is not there");
    }

    pub(crate) fn remove(&self, plural: &str, namespace: &str, name: &str) {
        let _turn = self.turn();
        self.take(plural, namespace, name);
    }

    fn take(&self, plural: &str, namespace: &str, name: &str) {
        let place = (namespace.to_owned(), name.to_owned());
        let mut kept = self.kept();
        let Some(mut gone) = kept.objects.get_mut(plural).and_then(|all| all.remove(&place)) else { return };
        kept.last += 1;
        gone["metadata"]["resourceVersion"] = json!(kept.last.to_string());
        kept.gone.push((plural.to_owned(), gone.clone()));
        drop(kept);
        self.tell(plural, "DELETED", &gone);
    }

    /// As `kubectl delete`: an object with finalizers stays until it has none.
    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let _turn = self.turn();
        self.end(plural, namespace, name);
    }

    fn end(&self, plural: &str, namespace: &str, name: &str) {
        let object = self.get(plural, namespace, name).expect("an object");
        if object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
            return self.take(plural, namespace, name);
        }
        let now = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
        self.amend(plural, namespace, name, &now);
    }

    fn tell(&self, plural: &str, kind: &str, object: &Value) {
        // Nobody may be watching.
        let _ = self.events.send((plural.to_owned(), json!({ "type": kind, "object": object })));
    }

    async fn answer(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let Some(target) = Target::of(parts.uri.path()) else { return failure(404, "no such path") };
        let query = parameters(parts.uri.query().unwrap_or_default());
        let body = axum::body::to_bytes(body, 16 << 20).await.expect("a body");
        if parts.method == Method::GET && query.contains_key("watch") {
            return self.watch(&target, &query);
        }
        if parts.method == Method::POST && target.plural == "pods" {
            drop(self.pods.read().await);
        }
        let fault = self.kept().script.as_mut().and_then(|script| script(parts.method.as_str(), &target));
        if let Some(Fault::Status(code)) = fault {
            return failure(code, "as it was told to");
        }
        let kind = parts.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let answer = self.act(parts.method.as_str(), &target, &query, kind, &body);
        if fault == Some(Fault::Lost) {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
        }
        answer
    }

    /// Does what a request asks for, one request after the other: who reads and then writes does both as one.
    fn act(
        &self,
        verb: &str,
        target: &Target,
        query: &HashMap<String, String>,
        kind: &str,
        body: &[u8],
    ) -> Response<Body> {
        let _turn = self.turn();
        match verb {
            "GET" => self.read(target, query),
            "POST" => self.create(target, body),
            "PUT" => self.replace(target, body),
            "PATCH" => self.patch(target, query, kind, body),
            "DELETE" => self.erase(target, body),
            _ => failure(405, "no such verb"),
        }
    }

    fn watch(&self, target: &Target, query: &HashMap<String, String>) -> Response<Body> {
        let _turn = self.turn();
        let from: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        let selector = query.get("labelSelector").cloned().unwrap_or_default();
        let kept = self.kept();
        let events = self.events.subscribe();
        // What came and what went between the list and this is told first, in the order in which it did.
        let there = kept.objects.get(&target.plural).into_iter().flat_map(BTreeMap::values);
        let gone = kept.gone.iter().filter(|(plural, _)| *plural == target.plural).map(|(_, object)| object);
        let version = |object: &Value| {
            let text = object["metadata"]["resourceVersion"].as_str();
            text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        let missed = there.map(|object| ("MODIFIED", object)).chain(gone.map(|object| ("DELETED", object)));
        let mut missed: Vec<_> =
            missed.filter(|(_, object)| version(object) > from && selected(object, &selector)).collect();
        missed.sort_by_key(|(_, object)| version(object));
        let missed: Vec<_> =
            missed.into_iter().map(|(kind, object)| json!({ "type": kind, "object": object })).collect();
        drop(kept);
        let plural = target.plural.clone();
        let later = tokio_stream::wrappers::BroadcastStream::new(events).filter_map(move |event| {
            let told = match event {
                Ok((of, event)) if of.is_empty() || of == plural && selected(&event["object"], &selector) => {
                    Some(event)
                }
                Ok(_) => None,
                Err(_) => Some(json!({ "type": "ERROR", "object": { "code": 410, "status": "Failure" } })),
            };
            async move { told }
        });
        let lines = futures::stream::iter(missed).chain(later);
        let lines = lines.map(|event| Ok::<_, Infallible>(Bytes::from(format!("{event}\n"))));
        Response::new(Body::from_stream(lines))
    }

    fn read(&self, target: &Target, query: &HashMap<String, String>) -> Response<Body> {
        let kept = self.kept();
        let all = kept.objects.get(&target.plural);
        if let (Some(namespace), Some(name)) = (&target.namespace, &target.name) {
            let found = all.and_then(|all| all.get(&(namespace.clone(), name.clone())));
            return found.map_or_else(|| failure(404, "it is not there"), |object| told(200, object));
        }
        let selector = query.get("labelSelector").cloned().unwrap_or_default();
        let named = query.get("fieldSelector").and_then(|text| text.strip_prefix("metadata.name="));
        let within = |place: &Place| {
            let there = target.namespace.as_ref().is_none_or(|namespace| *namespace == place.0);
            there && named.is_none_or(|name| name == place.1)
        };
        let all = all.into_iter().flatten().filter(|(place, _)| within(place)).map(|(_, object)| object);
        let items: Vec<_> = all.filter(|object| selected(object, &selector)).collect();
        told(
            200,
            &json!({
                "kind": "List", "apiVersion": "v1",
                "metadata": { "resourceVersion": kept.last.to_string() }, "items": items,
            }),
        )
    }

    fn create(&self, target: &Target, body: &[u8]) -> Response<Body> {
        let mut object: Value = serde_json::from_slice(body).expect("JSON");
        object["metadata"]["namespace"] = json!(target.namespace.as_deref().expect("a namespace"));
        let place = place(&object);
        if self.get(&target.plural, &place.0, &place.1).is_some() {
            return failure(409, "it is there already");
        }
        self.note("create", target, &place.1);
        self.store(&target.plural, object);
        let made = self.get(&target.plural, &place.0, &place.1).expect("what was just made");
        told(201, &made)
    }

    fn replace(&self, target: &Target, body: &[u8]) -> Response<Body> {
        let object: Value = serde_json::from_slice(body).expect("JSON");
        let (namespace, name) = place(&object);
        let Some(before) = self.get(&target.plural, &namespace, &name) else { return failure(404, "not there") };
        if before["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
            return failure(409, "it has changed");
        }
        self.note("replace", target, &name);
        self.store(&target.plural, object);
        told(200, &self.get(&target.plural, &namespace, &name).expect("an object"))
    }

    fn patch(&self, target: &Target, query: &HashMap<String, String>, kind: &str, body: &[u8]) -> Response<Body> {
        let change: Value = serde_json::from_slice(body).expect("JSON");
        let (namespace, name) = (target.namespace.as_deref().expect("one"), target.name.as_deref().expect("one"));
        let applies = kind.contains("apply");
        let before = self.get(&target.plural, namespace, name);
        let Some(before) =
            before.or_else(|| applies.then(|| json!({ "metadata": { "namespace": namespace, "name": name } })))
        else {
            return failure(404, "it is not there");
        };
        let uid = &change["metadata"]["uid"];
        if !uid.is_null() && before["metadata"]["uid"] != *uid {
            return failure(409, "it is another");
        }
        let version = &change["metadata"]["resourceVersion"];
        if !version.is_null() && before["metadata"]["resourceVersion"] != *version {
            return failure(409, "it has changed");
        }
        let mut object = before.clone();
        merge(&mut object, &change);
        if applies && let Err(owner) = self.own(target, query, &change, &mut object) {
            return failure(409, &format!("conflict with \"{owner}\": .spec.replicas"));
        }
        if object != before {
            let part = target.part.as_deref().unwrap_or("object");
            self.note(if applies { "apply" } else { part }, target, name);
            let ends = !object["metadata"]["deletionTimestamp"].is_null()
                && object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
            self.store(&target.plural, object);
            if ends {
                self.take(&target.plural, namespace, name);
            }
        }
        told(200, &self.get(&target.plural, namespace, name).unwrap_or(before))
    }

    /// Who applies `spec.replicas` owns it, unless somebody else does who says otherwise.
    fn own(
        &self,
        target: &Target,
        query: &HashMap<String, String>,
        change: &Value,
        object: &mut Value,
    ) -> Result<(), String> {
        let said = &change["spec"]["replicas"];
        if target.plural != "mcpservers" || said.is_null() {
            return Ok(());
        }
        let place = place(object);
        let manager = query.get("fieldManager").cloned().unwrap_or_default();
        let mut kept = self.kept();
        let owners = kept.replicas.entry(place.clone()).or_default();
        if let Some((owner, _)) = owners.iter().find(|(owner, value)| **owner != manager && *value != said) {
            return Err(owner.clone());
        }
        owners.insert(manager, said.clone());
        object["metadata"]["managedFields"] = kept.fields(&place);
        Ok(())
    }

    fn erase(&self, target: &Target, body: &[u8]) -> Response<Body> {
        let options: Value = serde_json::from_slice(body).unwrap_or_default();
        let (namespace, name) = (target.namespace.as_deref().expect("one"), target.name.as_deref().expect("one"));
        let Some(object) = self.get(&target.plural, namespace, name) else { return failure(404, "not there") };
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && object["metadata"]["uid"] != *uid {
            return failure(409, "it is another");
        }
        self.note("delete", target, name);
        self.end(&target.plural, namespace, name);
        told(200, &object)
    }

    fn note(&self, verb: &str, target: &Target, name: &str) {
        // Leases and events are written for other reasons than servers.
        if !matches!(target.plural.as_str(), "leases" | "events") {
            self.kept().writes.push(format!("{verb} {}/{name}", target.plural));
        }
    }
}

impl Kept {
    /// What an API server adds to an object.
    fn fill(&mut self, mut object: Value, before: Option<&Value>) -> Value {
        self.last += 1;
        let last = self.last;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(last.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{last}"));
        }
        if metadata["creationTimestamp"].is_null() {
            let now = k8s_openapi::jiff::Timestamp::now();
            metadata["creationTimestamp"] = json!(now.to_string());
        }
        let generation = before.map_or(0, |before| before["metadata"]["generation"].as_i64().unwrap_or(0));
        let changed = before.is_none_or(|before| before["spec"] != object["spec"]);
        object["metadata"]["generation"] = json!(generation + i64::from(changed));
        object
    }

    fn fields(&self, place: &Place) -> Value {
        let owner = |manager: &String| {
            json!({
                "manager": manager, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "fieldsV1": { "f:spec": { "f:replicas": {} } },
            })
        };
        self.replicas.get(place).map(|owners| owners.keys().map(owner).collect()).unwrap_or_default()
    }
}

fn place(object: &Value) -> Place {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn told(status: u16, object: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(object.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
    response
}

fn failure(code: u16, message: &str) -> Response<Body> {
    // Clients know what is not there by the reason, not by the code.
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    told(code, &json!({ "kind": "Status", "status": "Failure", "code": code, "message": message, "reason": reason }))
}
