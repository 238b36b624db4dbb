//! IN-1, IN-3, FE-1, EP-1: a real API server. Sockets follow what is created, changed and deleted through it.
//!
//! Runs where `KUBEBUILDER_ASSETS` names a folder with `etcd` and `kube-apiserver`
//! (`setup-envtest use -p path` prints one). The machine on which it was written could not run it.

use std::{fmt::Display, time::Duration};

use hyper::Request;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;
use sidestep_tests::{
    Agent, cluster,
    cluster::{at, service},
    control_plane::{self, ControlPlane},
    eventually,
    eventually::wait_for,
    manifest::{NAMESPACE, Node},
    skip,
    traffic::{ask, connect, is_refused},
};

/// How long the API server may take to be ready.
const READY: Duration = Duration::from_mins(1);
const WEB: &str = "10.96.0.10:80";

/// A client on the node that makes one request at a time.
struct Api<'a> {
    plane: &'a ControlPlane,
    node: &'a sidestep_tests::Place,
}

impl Api<'_> {
    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let bytes = body.map(ToString::to_string).unwrap_or_default().into_bytes();
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.body(bytes).expect("a request");
        let kubeconfig = Kubeconfig::read_from(self.plane.kubeconfig()).expect("a kubeconfig");
        self.node
            .namespace()
            .run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let config =
                        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
                    let client = Client::try_from(config.expect("a configuration")).expect("a client");
                    let text =
                        tokio::time::timeout(Duration::from_secs(10), client.request_text(request)).await;
                    let text =
                        text.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
                    Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
                })
            })
            .expect("a thread in the namespace")
    }

    /// The object as the server returns it.
    fn create(&self, collection: &str, manifest: &impl Display) -> Value {
        let object = object(manifest);
        self.request("POST", collection, Some(&object)).unwrap_or_else(|error| panic!("{error}: {object}"))
    }

    fn replace(&self, collection: &str, manifest: &impl Display) {
        let object = object(manifest);
        let path = format!("{collection}/{}", object["metadata"]["name"].as_str().expect("a name"));
        self.request("PUT", &path, Some(&object)).unwrap_or_else(|error| panic!("{error}: {object}"));
    }

    fn delete(&self, collection: &str, name: &str) {
        self.request("DELETE", &format!("{collection}/{name}"), None).expect("deleted");
    }
}

fn object(manifest: &impl Display) -> Value {
    serde_saphyr::from_str(&manifest.to_string()).expect("YAML")
}

#[test]
fn sockets_follow_a_real_api_server() {
    let assets = match control_plane::assets() {
        Ok(assets) => assets,
        Err(missing) => skip!("{missing}"),
    };
    let cluster = cluster!(2);
    let plane = ControlPlane::start(&assets, &cluster.lab).expect("a control plane");
    let api = Api { plane: &plane, node: cluster.lab.node() };
    let ready = || api.request("GET", "/readyz", None).is_ok_and(|answer| answer == "ok");
    wait_for(READY, "the API server is ready", ready)
        .unwrap_or_else(|error| panic!("{error}\n{}", plane.log()));
    let exists = || api.request("GET", &format!("/api/v1/namespaces/{NAMESPACE}"), None).is_ok();
    wait_for(READY, "the namespace exists", exists)
        .unwrap_or_else(|error| panic!("{error}\n{}", plane.log()));

    let services = format!("/api/v1/namespaces/{NAMESPACE}/services");
    let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices");
    api.create("/api/v1/nodes", &Node::lab());
    api.create(&services, &service("web", &["10.96.0.10"]));
    api.create(&slices, &cluster.slice_v4("web", [0]));
    let mut agent = Agent::at(&cluster.lab, plane.url()).variable("KUBECONFIG", plane.kubeconfig());
    agent.restart(&cluster.lab).expect("an agent");
    let who = |vip: &'static str| cluster.client.run(move || ask(at(vip)).map(|answer| answer.server)).ok();
    assert_eq!(who(WEB).as_deref(), Some("pod-0"), "a Service that existed before the agent started");

    api.replace(&slices, &cluster.slice_v4("web", [1]));
    eventually("the new endpoint answers", || who(WEB).as_deref() == Some("pod-1"));
    api.create(&services, &service("new", &["10.96.0.11"]));
    api.create(&slices, &cluster.slice_v4("new", [0]));
    eventually("the new Service works", || who("10.96.0.11:80").as_deref() == Some("pod-0"));
    api.delete(&slices, "web-ipv4");
    eventually("without endpoints the Service refuses", || {
        cluster.client.run(|| is_refused(&connect(at(WEB))))
    });
    api.create(&slices, &cluster.slice_v4("web", [0, 1]));
    eventually("the Service works again", || who(WEB).is_some());
    api.delete(&services, "new");
    eventually("the deleted Service is gone", || {
        let status = cluster.lab.sidestep(&["status", "new"]).expect("status runs");
        !String::from_utf8_lossy(&status.stdout).contains("default/new")
    });
}
