# Perl as scripts of ten thousand systems use it.
set -euo pipefail
cd "$(mktemp -d)"
perl <<'END'
use strict; use warnings;
use File::Temp qw(tempfile tempdir); use File::Find; use File::Copy; use File::Path qw(make_path remove_tree);
use IO::Socket::INET; use IPC::Open3; use POSIX qw(:sys_wait_h); use Digest::SHA qw(sha256_hex); use Storable;
my ($handle, $name) = tempfile(UNLINK => 1);
print $handle "line $_\n" for 1 .. 5000;
close $handle;
copy($name, "copy") or die; move("copy", "moved") or die;
open my $in, "<", "moved" or die; my %seen; while (<$in>) { $seen{$1}++ if /(\d)$/ } close $in;
die unless $seen{7} == 500;
my $text = qx(sort -r moved | head -1); die unless $text =~ /^line/;
open my $pipe, "-|", "ps", "-ef" or die; my @lines = <$pipe>; close $pipe;
my $pid = open3(my $write, my $read, undef, "tr", "a-z", "A-Z"); print $write "abc"; close $write;
die unless <$read> eq "ABC"; waitpid $pid, 0;
my $server = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1") or die;
my $port = $server->sockport;
my $child = fork // die;
if (!$child) { for (1 .. 50) { my $c = $server->accept or die; print $c scalar <$c>; close $c } exit 0 }
for (1 .. 50) { my $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") or die; print $c "x\n"; die unless <$c> eq "x\n" }
waitpid $child, 0; die if $?;
make_path("a/b/c", { mode => 0750 }); chmod 0640, "moved"; my $count = 0; find(sub { $count++ }, "/etc"); die unless $count;
store({ a => 1 }, "stored"); die unless retrieve("stored")->{a} == 1;
remove_tree("a"); die unless length sha256_hex("x") == 64;
local $0 = "renamed"; system("true") == 0 or die;
END
perl -pi -e 's/line/Line/' moved 2> /dev/null || true
perl -MCPAN -e 1
perl -ne 'print if /root/' /etc/passwd
