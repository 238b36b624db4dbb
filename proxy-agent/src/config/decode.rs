//! The text of a configuration file.
//!
//! kube-proxy reads it strictly, and if that fails leniently with a warning (`loadConfig` in `options.go`); the
//! result here is the same, and each unknown field becomes a problem.

use serde_json::Value;

use super::KubeProxyConfiguration;

/// The content of a file.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Decoded {
    /// The fields that are known.
    pub configuration: KubeProxyConfiguration,
    /// Ignored fields, and why.
    pub passed_over: Vec<(String, String)>,
}

/// Why a file cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not YAML, or a known field has a value of another type.
    #[error("{0}")]
    Text(String),
    /// It is another kind of object.
    #[error("expected kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration, found `{found}`")]
    Kind {
        /// Its `apiVersion` and `kind`.
        found: String,
    },
}

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// Reads a file's text, YAML or JSON.
pub fn decode(text: &str) -> Result<Decoded, Error> {
    let mut passed_over = Vec::new();
    let value: Value = match serde_saphyr::from_str(text) {
        Ok(value) => value,
        Err(strict) => {
            let options = serde_saphyr::options! {
                duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
            };
            let value = serde_saphyr::from_str_with_options(text, options)
                .map_err(|error| Error::Text(first_line(&error.to_string())))?;
            passed_over.push((
                "file".to_owned(),
                format!("{}; the last one counts", first_line(&strict.to_string())),
            ));
            value
        }
    };
    let mut unknown = Vec::new();
    let configuration: KubeProxyConfiguration =
        serde_ignored::deserialize(value, |path| unknown.push(path.to_string().replace(".?", "")))
            .map_err(|error| Error::Text(error.to_string()))?;
    let KubeProxyConfiguration { api_version, kind, .. } = &configuration;
    if api_version != API_VERSION || kind != KIND {
        return Err(Error::Kind { found: format!("{api_version} {kind}").trim().to_owned() });
    }
    let message =
        "unknown field of kube-proxy's configuration, without effect; remove it, or correct the spelling";
    passed_over.extend(unknown.into_iter().map(|field| (field, message.to_owned())));
    Ok(Decoded { configuration, passed_over })
}

/// Errors of the parser show the place in several lines.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

    /// CF-1 to CF-17: what kubeadm writes is known, field by field.
    #[test]
    fn the_file_of_kubeadm_is_known_completely() {
        let decoded = decode(include_str!("testdata/kubeadm.yaml")).expect("a configuration");
        assert_eq!(decoded.passed_over, []);
        let connection = decoded.configuration.client_connection.expect("clientConnection");
        assert_eq!(connection.kubeconfig.as_deref(), Some("/var/lib/kube-proxy/kubeconfig.conf"));
    }

    /// CF-17, and the lenient way: unknown fields are named with their path, and the rest counts.
    #[test]
    fn unknown_fields_are_named_and_the_rest_counts() {
        let text = format!(
            "{HEADER}hostnameOverride: n1\nhostNameOverride: n2\nclientConnection:\n  kubeConfig: /x\n  qps: 5\n"
        );
        let decoded = decode(&text).expect("a configuration");
        let fields: Vec<&str> = decoded.passed_over.iter().map(|(field, _)| &**field).collect();
        assert!(fields.contains(&"hostNameOverride"), "{fields:?}");
        assert!(fields.iter().any(|field| field.ends_with("kubeConfig")), "{fields:?}");
        assert_eq!(fields.len(), 2);
        assert_eq!(decoded.configuration.hostname_override.as_deref(), Some("n1"));
    }

    /// If a field is given twice, the last value counts, and a problem says so.
    #[test]
    fn the_last_of_two_values_counts() {
        let decoded = decode(&format!("{HEADER}hostnameOverride: n1\nhostnameOverride: n2\n")).expect("read");
        assert_eq!(decoded.configuration.hostname_override.as_deref(), Some("n2"));
        assert_eq!(decoded.passed_over.len(), 1, "{:?}", decoded.passed_over);
    }

    #[test]
    fn a_file_of_another_kind_is_rejected_by_name() {
        for (text, part) in [
            ("apiVersion: v1\nkind: ConfigMap\n", "v1 ConfigMap"),
            ("hello", ""),
            (&*format!("{HEADER}oomScoreAdj: many\n"), "many"),
            (&*format!("{HEADER}  bad: [indent\n"), ""),
        ] {
            let error = decode(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
