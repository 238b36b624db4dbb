//! Bad manifests of every kind: each is named, and its neighbours are read.

use super::*;

const WEB: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  clusterIP: 10.0.0.1\n  ports:\n  - port: 80\n";
const API: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: api\n  namespace: prod\nspec:\n  clusterIP: 10.0.0.2\n  ports:\n  - port: 80\n";

fn keys(parsed: &Parsed) -> Vec<String> {
    parsed.objects.iter().map(|(position, key, _)| format!("{position}: {key}")).collect()
}

fn bad(parsed: &Parsed) -> Vec<String> {
    parsed.bad.iter().map(|bad| format!("{}: {}", bad.position, bad.flaw.field)).collect()
}

#[test]
fn documents_are_read_one_by_one() {
    for text in [
        format!("{WEB}---\n{API}"),
        format!("---\n{WEB}\n---\n# nothing here\n---\n{API}---\n"),
        format!("\u{feff}# a comment\n--- # another\r\n{WEB}...\n---   \n{API}...\n"),
    ] {
        let parsed = parse(&text);
        let expected = ["document 1: Service default/web", "document 2: Service prod/api"];
        assert_eq!(
            keys(&parsed).iter().map(|key| key.split_once(": ").expect("a position").1).collect::<Vec<_>>(),
            expected.map(|key| key.split_once(": ").expect("a position").1),
            "{text}"
        );
        assert!(parsed.bad.is_empty(), "{:?}", parsed.bad);
    }
}

#[test]
fn json_is_read_too() {
    let parsed =
        parse("{\n\t\"apiVersion\": \"v1\", \"kind\": \"Service\",\n\t\"metadata\": {\"name\": \"web\"}}\n");
    assert_eq!(keys(&parsed), ["document 1: Service default/web"]);
}

#[test]
fn a_list_is_its_items() {
    let text = r"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.0.0.1}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: web}}
- {apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {ports: nonsense}}
- {apiVersion: v1, kind: Node, metadata: {name: n1}}
---
apiVersion: v1
kind: ServiceList
items:
- {metadata: {name: api}, spec: {clusterIP: 10.0.0.2}}
---
apiVersion: v1
kind: List
items: null
";
    let parsed = parse(text);
    assert_eq!(
        keys(&parsed),
        [
            "document 1, items[0]: Service default/web",
            "document 1, items[3]: Node n1",
            "document 2, items[0]: Service default/api",
        ]
    );
    assert_eq!(bad(&parsed), ["document 1, items[1]: kind", "document 1, items[2]: item"]);
}

#[test]
fn a_bad_document_is_named_and_its_neighbours_are_read() {
    for (text, field, about, says) in [
        ("kind: [", "line 11", false, ""),
        (
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: x\nspec:\n  clusterIP: \"10.0",
            "line 17",
            false,
            "",
        ),
        ("just words", "line 11", false, ""),
        ("apiVersion: v1\nkind: Deployment\nmetadata: {name: x}\n", "kind", true, "Deployment"),
        ("apiVersion: v1\nkind: [Service]\nmetadata: {name: x}\n", "line 12", false, ""),
        ("kind: Service\nmetadata: {name: x}\n", "apiVersion", true, "v1"),
        (
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: x}\n",
            "apiVersion",
            true,
            "knative",
        ),
        ("apiVersion: v1\nkind: Service\nmetadata: {namespace: x}\n", "metadata.name", false, "name"),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec:\n  ports:\n  - port: eighty\n",
            "line 16",
            true,
            "",
        ),
        (
            "apiVersion: v1\nkind: Service\nkind: Service\nmetadata: {name: x}\n",
            "line 13",
            false,
            "duplicate",
        ),
    ] {
        let parsed = parse(&format!("{WEB}\n---\n{text}\n---\n{API}"));
        assert_eq!(parsed.objects.len(), 2, "{text}: {parsed:?}");
        let [Bad { position, about: identity, flaw, unread: _ }] = &parsed.bad[..] else {
            panic!("{text}: {:?}", parsed.bad);
        };
        assert_eq!(position.to_string(), "document 2", "{text}");
        assert_eq!(identity.is_some(), about, "{text}");
        assert_eq!(&*flaw.field, field, "{text}: {}", flaw.message);
        assert!(flaw.message.contains(says), "{text}: {}", flaw.message);
        assert!(!flaw.message.contains('\n'), "{}", flaw.message);
    }
}

/// IN-2: it is there, and it is nobody's.
#[test]
fn headless_services_are_no_problem() {
    let parsed = parse("apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {clusterIP: None}\n");
    assert!(parsed.bad.is_empty());
    assert!(matches!(&parsed.objects[..], [(_, _, None)]), "{parsed:?}");
}

/// EP-3: manifests never met an API server, which names an unnamed port.
#[test]
fn a_port_of_a_slice_may_be_unnamed() {
    let parsed = parse(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: x\n  labels: {kubernetes.io/service-name: web}\naddressType: IPv4\nports: [{port: 80}]\n",
    );
    let [(_, _, Some(Object::EndpointSlice(slice)))] = &parsed.objects[..] else { panic!("{parsed:?}") };
    assert_eq!(slice.ports.len(), 1);
}

#[test]
fn a_large_document_is_within_the_budget() {
    let text = format!("{WEB}  unknown:\n{}", "  - a\n".repeat(300_000));
    let parsed = parse(&text);
    assert_eq!((parsed.objects.len(), parsed.bad.len()), (1, 0), "{:?}", parsed.bad);
}

/// What cannot be read may be about a Service; the less can be read, the more Services it may be about.
#[test]
fn a_bad_document_says_which_services_it_may_be_about() {
    let of = |name| Unread::of(ObjectName::new("default", name));
    let meta = "metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}";
    for (text, unread) in [
        ("kind: [Service]\nmetadata: {name: x}\n".to_owned(), Unread::anything()),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: [".to_owned(),
            Unread::anything(),
        ),
        ("apiVersion: v1\nkind: Service\nmetadata: {namespace: x}\n".to_owned(), Unread::anything()),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: eighty}\n".to_owned(),
            of("web"),
        ),
        ("apiVersion: v1\nkind: Servce\nmetadata: {name: web}\n".to_owned(), of("web")),
        (format!("apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\n{meta}\n"), of("web")),
        ("kind: EndpointSlice\nmetadata: {name: web-1}\n".to_owned(), Unread::anything()),
        ("kind: Node\nmetadata: {name: n1}\n".to_owned(), Unread::default()),
        ("kind: List\nitems: no\n".to_owned(), Unread::anything()),
        ("kind: PodList\nitems: no\n".to_owned(), Unread::default()),
    ] {
        let parsed = parse(&text);
        let [bad] = &parsed.bad[..] else { panic!("{text}: {parsed:?}") };
        assert_eq!(bad.unread, unread, "{text}");
    }
}
