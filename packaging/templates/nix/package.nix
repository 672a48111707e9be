# For pkgs.callPackage; copy the sources' Cargo.lock into the same directory. In the NixOS configuration:
#   virtualisation.docker.rootless.enable = true;
#   nixpkgs.overlays = [ (final: prev: { rootlesskit = final.callPackage ./package.nix { }; }) ];
{
  lib,
  rustPlatform,
  fetchurl,
  makeWrapper,
  iproute2,
  iptables,
  procps,
}:

rustPlatform.buildRustPackage rec {
  pname = "docker-rootless-extras";
  version = "@VERSION@";

  src = fetchurl {
    url = "@SOURCE@";
    sha256 = "@SHA256@";
  };

  cargoLock.lockFile = ./Cargo.lock;

  nativeBuildInputs = [ makeWrapper ];

  # `cargo xtask install` builds the programs, generates man pages and completions, and installs every file.
  buildPhase = ''
    runHook preBuild
    cargo xtask install --frozen --destdir "$PWD/root" --prefix /
    runHook postBuild
  '';

  # Nix builders have no user namespaces.
  doCheck = false;

  installPhase = ''
    runHook preInstall
    mkdir -p $out
    cp -a root/. $out/
    mkdir -p $out/lib/systemd/user
    substitute packaging/examples/docker.service $out/lib/systemd/user/docker.service \
      --replace-fail /usr/bin/dockerd-rootless.sh $out/bin/dockerd-rootless.sh \
      --replace-fail /bin/kill ${procps}/bin/kill \
      --replace-fail PATH= PATH=/run/wrappers/bin:/run/current-system/sw/bin:
    cp packaging/examples/docker.socket $out/lib/systemd/user/
    # newuidmap is in the system's wrapper directory, because nothing in the store is setuid.
    wrapProgram $out/bin/dockerd-rootless \
      --prefix PATH : /run/wrappers/bin:$out/bin:${lib.makeBinPath [ iproute2 iptables ]}
    runHook postInstall
  '';

  meta = {
    description = "Run the Docker daemon as an ordinary user";
    homepage = "https://docs.docker.com/go/rootless/";
    license = lib.licenses.asl20;
    platforms = lib.platforms.linux;
    mainProgram = "dockerd-rootless";
  };
}
