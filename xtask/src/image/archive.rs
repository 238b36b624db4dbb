//! An image as one tar: an OCI layout, with the `manifest.json` that Docker's older loader reads beside it.
//!
//! Both descriptions name the same blobs. Nothing in the archive depends on when, where or by whom it was made.

use std::collections::HashMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use oci_spec::image::{
    ANNOTATION_REF_NAME, Arch, Config, ConfigBuilder, Descriptor, DescriptorBuilder, Digest,
    ImageConfiguration, ImageConfigurationBuilder, ImageIndex, ImageIndexBuilder, ImageManifest,
    ImageManifestBuilder, MediaType, OciLayoutBuilder, Os, PlatformBuilder, RootFsBuilder,
};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::layer;
use crate::tarball;

/// The annotation in which containerd looks for the whole name; [`ANNOTATION_REF_NAME`] is the tag alone.
const ANNOTATION_NAME: &str = "io.containerd.image.name";

/// An image of one layer.
pub(super) struct Image {
    name: String,
    layer: Blob,
    config: Blob,
    manifest: Blob,
    index: Vec<u8>,
}

/// Content and its digest, by which the archive names it.
struct Blob {
    bytes: Vec<u8>,
    descriptor: Descriptor,
}

impl Blob {
    fn new(media_type: MediaType, bytes: Vec<u8>) -> Result<Self> {
        let digest: Digest = format!("sha256:{}", sha256(&bytes)).parse()?;
        Ok(Self { descriptor: Descriptor::new(media_type, bytes.len() as u64, digest), bytes })
    }

    fn digest(&self) -> &Digest {
        self.descriptor.digest()
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest().digest())
    }
}

impl Image {
    /// The image `name` of `layer`, an uncompressed tar.
    pub(super) fn new(name: &str, layer: Vec<u8>) -> Result<Self> {
        let (_, tag) = name
            .rsplit_once(':')
            .filter(|(_, tag)| !tag.contains('/'))
            .with_context(|| format!("--name {name} has no tag; use {name}:{}", env!("CARGO_PKG_VERSION")))?;
        let layer = Blob::new(MediaType::ImageLayer, layer)?;
        let config = Blob::new(MediaType::ImageConfig, canonical(&configuration(&layer)?)?)?;
        let manifest = canonical(&manifest(&config, &layer)?)?;
        let manifest = Blob::new(MediaType::ImageManifest, manifest)?;
        let index = canonical(&index(name, tag, &manifest)?)?;
        Ok(Self { name: name.to_owned(), layer, config, manifest, index })
    }

    /// The digest of the manifest: the image's, as registries and runtimes show it.
    pub(super) fn digest(&self) -> &Digest {
        self.manifest.digest()
    }

    /// The tar.
    pub(super) fn archive(&self) -> Result<Vec<u8>> {
        let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;
        let docker = json!([{
            "Config": self.config.path(), "RepoTags": [self.name], "Layers": [self.layer.path()],
        }]);
        let mut tar = tar::Builder::new(Vec::new());
        tarball::file(&mut tar, "oci-layout", 0o644, &canonical(&layout)?)?;
        tarball::file(&mut tar, "index.json", 0o644, &self.index)?;
        tarball::file(&mut tar, "manifest.json", 0o644, &canonical(&docker)?)?;
        for folder in ["blobs/", "blobs/sha256/"] {
            tarball::folder(&mut tar, folder)?;
        }
        for blob in [&self.manifest, &self.config, &self.layer] {
            tarball::file(&mut tar, &blob.path(), 0o644, &blob.bytes)?;
        }
        Ok(tar.into_inner()?)
    }
}

fn configuration(layer: &Blob) -> Result<ImageConfiguration> {
    let config: Config = ConfigBuilder::default()
        .entrypoint(["/".to_owned() + layer::BINARY])
        .cmd(["run".to_owned()])
        // For `kubectl exec … -- sidestep status`.
        .env(["PATH=/usr/bin".to_owned()])
        .labels(HashMap::from([
            ("org.opencontainers.image.source".to_owned(), env!("CARGO_PKG_REPOSITORY").to_owned()),
            ("org.opencontainers.image.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("org.opencontainers.image.licenses".to_owned(), env!("CARGO_PKG_LICENSE").to_owned()),
        ]))
        .build()?;
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids([layer.digest().to_string()]).build()?;
    Ok(ImageConfigurationBuilder::default()
        .created("1970-01-01T00:00:00Z")
        .architecture(Arch::default())
        .os(Os::Linux)
        .config(config)
        .rootfs(rootfs)
        .build()?)
}

fn manifest(config: &Blob, layer: &Blob) -> Result<ImageManifest> {
    Ok(ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(config.descriptor.clone())
        .layers([layer.descriptor.clone()])
        .build()?)
}

fn index(name: &str, tag: &str, manifest: &Blob) -> Result<ImageIndex> {
    let names = [(ANNOTATION_NAME, name), (ANNOTATION_REF_NAME, tag)];
    let names = names.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let platform = PlatformBuilder::default().architecture(Arch::default()).os(Os::Linux).build()?;
    let entry = DescriptorBuilder::default()
        .media_type(MediaType::ImageManifest)
        .digest(manifest.digest().clone())
        .size(manifest.descriptor.size())
        .annotations(HashMap::from(names))
        .platform(platform)
        .build()?;
    Ok(ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageIndex)
        .manifests([entry])
        .build()?)
}

/// The document with sorted keys: the types hold hash maps, which have no order.
fn canonical(document: &impl Serialize) -> Result<Vec<u8>> {
    let mut document = serde_json::to_value(document)?;
    document.sort_all_objects();
    Ok(serde_json::to_vec(&document)?)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use serde_json::Value;

    use super::*;

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
            let path = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            assert!(files.insert(path, bytes).is_none());
        }
        files
    }

    #[test]
    fn every_digest_leads_to_its_content_and_both_descriptions_agree() {
        let image = Image::new("example.org/a/b:1", layer::build(b"binary").unwrap()).unwrap();
        let files = files(&image.archive().unwrap());
        let json = |path: &str| serde_json::from_slice::<Value>(&files[path]).unwrap();
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let path = format!("blobs/sha256/{digest}");
            let bytes = &files[&path];
            assert_eq!(descriptor["size"], bytes.len());
            assert_eq!(sha256(bytes), digest);
            path
        };
        assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
        let entry = &json("index.json")["manifests"][0];
        assert_eq!(entry["annotations"][ANNOTATION_NAME], "example.org/a/b:1");
        assert_eq!(entry["annotations"][ANNOTATION_REF_NAME], "1");
        let manifest = json(&blob(entry));
        let (config, layer) = (blob(&manifest["config"]), blob(&manifest["layers"][0]));
        // The layer is not compressed, so both of its digests are the same.
        assert_eq!(json(&config)["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert_eq!(json(&config)["config"]["Entrypoint"][0], "/usr/bin/sidestep");
        let docker = &json("manifest.json")[0];
        assert_eq!((&docker["Config"], &docker["Layers"][0]), (&json!(config), &json!(layer)));
        assert_eq!(docker["RepoTags"][0], "example.org/a/b:1");
        // Three documents, three blobs, two folders: nothing else.
        assert_eq!(files.len(), 8, "{:?}", files.keys());
    }

    #[test]
    fn the_same_binary_makes_the_same_archive() {
        let make = || Image::new("a:1", layer::build(b"binary").unwrap()).unwrap().archive().unwrap();
        let first = make();
        assert!((0..8).all(|_| make() == first));
    }

    #[test]
    fn a_name_without_a_tag_is_refused() {
        assert!(Image::new("example.org:5000/a", Vec::new()).is_err());
    }
}
