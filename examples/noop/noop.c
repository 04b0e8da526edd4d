/* The smallest algorithm: one declared number in /out/metrics.json, then the end. It measures what
 * Glovebox itself costs, and gives hostile tests an image whose honest behaviour takes no time. */
#include <fcntl.h>
#include <unistd.h>

int main(void) {
  static const char text[] = "{\"ok\":1}\n";
  int fd = open("/out/metrics.json", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return 1;
  if (write(fd, text, sizeof text - 1) != (ssize_t)(sizeof text - 1)) return 1;
  return close(fd) == 0 ? 0 : 1;
}
