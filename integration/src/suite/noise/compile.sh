# A compiler at work: a program and a library of C, made and started.
set -euo pipefail
mkdir /opt/build && cd /opt/build
printf '#include <stdio.h>\nint half(int);\nint main(void) { printf("%%d\\n", half(42)); return 0; }\n' > main.c
printf 'int half(int n) { return n / 2; }\n' > half.c
cat > Makefile <<'END'
all: static dynamic
static: main.o libhalf.a
	gcc -o $@ $^
libhalf.a: half.o
	ar rcs $@ $^
libhalf.so: half.c
	gcc -shared -fPIC -o $@ $^
dynamic: main.o libhalf.so
	gcc -o $@ $< -L. -lhalf -Wl,-rpath,.
	strip $@
END
make --silent --jobs=2
[ "$(./static)" = 21 ] && [ "$(./dynamic)" = 21 ]
gcc -O2 -flto=auto -c half.c 2> /dev/null || gcc -O2 -c half.c
nm half.o > /dev/null && objdump -d static > /dev/null
