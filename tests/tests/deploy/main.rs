//! What is deployed: the overlays, the image, and what a container allows.

mod containers;
mod image;
mod renders;
