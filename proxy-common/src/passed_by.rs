//! Whom the socket programs pass by: network namespaces whose sockets keep the Service's address that they asked for. Their
//! packets are translated at the node's end of the pod's wire.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $number:literal $reason:ident $name:literal $explanation:literal;)+) => {
        /// Why a network namespace is passed by: the value of its element of BYPASSED.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
        #[repr(u64)]
        pub enum PassedBy {
            $($(#[doc = $doc])+ $reason = $number,)+
        }

        impl PassedBy {
            /// How many there are.
            const COUNT: usize = [$($number),+].len();

            /// Every reason, in the order of their numbers.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$reason),+];

            /// The name that commands and the report use.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$reason => $name,)+
                }
            }

            /// The cause in one sentence, for people.
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$reason => $explanation,)+
                }
            }

            /// Whether a Pod asked for it.
            pub const fn is_wish(self) -> bool {
                matches!(self, Self::Annotated | Self::Runtime)
            }

            /// From the value of an element of BYPASSED.
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$reason),)+
                    _ => None,
                }
            }
        }
    };
}

/// What a Pod says about its sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketWish {
    /// They are served in any case.
    Serve,
    /// They are passed by, for this reason.
    PassBy(PassedBy),
}

reasons! {
    /// A namespace behind a pod: of a cluster in a pod, of docker in docker.
    1 Nested "nested"
        "its wires lead into another pod, whose rules and routes come first";
    /// A sidecar's, as Istio's and Linkerd's, or a node's that runs in a pod.
    2 Redirects "redirects"
        "its netfilter rules redirect what its own processes send, and need the Service's address (SO_ORIGINAL_DST)";
    /// A VPN's, or one with several networks.
    3 Routes "routes"
        "its route to Services is another than its default route, which an endpoint's address would take";
    /// The Pod has the annotation `sidestep.dev/socket-lb: "off"`.
    4 Annotated "annotated"
        "its Pod has the annotation sidestep.dev/socket-lb with the value off";
    /// The Pod's runtime class is one of those with a network stack of their own (Kata, gVisor).
    5 Runtime "runtime"
        "its Pod's runtime class brings a network stack of its own";
}
