//! What is deployed: the overlays, the image, and what a container allows.

mod containers;
mod helm;
mod image;
mod monitoring;
mod package;
mod renders;
