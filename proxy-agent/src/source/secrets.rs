//! What must not be told: users and passwords in addresses, and the text of a kubeconfig, of which a parser's message
//! quotes a piece.

use ::kube::config::KubeconfigError;

use crate::causes::Causes;

/// The address without a user and a password: `https://user:word@host` becomes `https://host`.
pub fn without_user(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").map_or(("", address), |(scheme, rest)| (scheme, rest));
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if scheme.is_empty() { format!("{host}{path}") } else { format!("{scheme}://{host}{path}") }
}

/// What is wrong with a kubeconfig, without any of its text.
pub(super) fn told(error: &KubeconfigError) -> String {
    let KubeconfigError::Parse(error) = error else { return Causes(error).to_string() };
    match error.location() {
        Some(place) => {
            format!("line {}, column {} is not what a kubeconfig has there", place.line(), place.column())
        }
        None => "it is not a kubeconfig in YAML".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use ::kube::config::Kubeconfig;

    use super::*;

    #[test]
    fn an_address_is_told_without_its_user() {
        for (address, told) in [
            ("https://10.0.0.1:6443", "https://10.0.0.1:6443"),
            ("https://user:word@10.0.0.1:6443/path?x@y", "https://10.0.0.1:6443/path?x@y"),
            ("https://user:w@rd@[fd00::1]:6443", "https://[fd00::1]:6443"),
            ("user:word@host", "host"),
            ("https://host/a@b", "https://host/a@b"),
            ("", ""),
        ] {
            assert_eq!(without_user(address), told, "{address}");
        }
    }

    #[test]
    fn a_broken_kubeconfig_is_told_without_its_text() {
        for text in [
            "users:\n- name: n\n  user: {token: s3cret\n",
            "users: s3cret\n",
            "users:\n- name: n\n  user: s3cret\n",
            "users:\n- name: n\n  user:\n    token: [s3cret]\n",
            "current-context: *s3cret\n",
        ] {
            let error = Kubeconfig::from_yaml(text).expect_err(text);
            let told = told(&error);
            assert!(!told.contains("s3cret") && told.contains("kubeconfig"), "{text}: {told}");
        }
    }
}
