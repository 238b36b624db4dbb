//! Deployment: the overlays, the chart, the image and the package, the monitoring, and what a container allows.

mod containers;
mod helm;
mod image;
mod monitoring;
mod package;
mod renders;
